"""GPT-2 124M with random weights, as a program in a folder: what the benchmarks of generation read."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from neural.backends.module import load_module
from neural.compiler import load

EXAMPLE = Path(__file__).parents[1] / "examples" / "gpt2.neural"


def write_gpt2(folder: Path) -> Path:
    """The program, with its weights beside it. They are large enough that greedy texts are not one token."""
    program = load(EXAMPLE)
    torch.manual_seed(0)
    model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.05)
    save_file({n: w for n, w in model.state_dict().items() if n != "lm_head.weight"}, folder / "model.safetensors")
    path = folder / "gpt2.neural"
    named = 'tokenizer: "gpt2"\n  weights: "model.safetensors"'
    path.write_text(EXAMPLE.read_text().replace('tokenizer: "gpt2"', named))
    return path


def machine() -> dict[str, Any]:
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0], "torch": torch.__version__,
    }  # fmt: skip
