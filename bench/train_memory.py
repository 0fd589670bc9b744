"""The memory that `neural plan` says, beside that of the process that trains: some sizes, both precisions, with and
without activation checkpointing. "words" is a small model of a large vocabulary.

    python bench/train_memory.py [--only gpt2,gpt2-long] [--precision float32,bfloat16] [--output bench/results]

Each result goes to bench/results/plan_memory_<date>.json at once, among those of the same day.

Each training is `neural train` as people type it, on the CPU, for some steps, and a checkpoint is written beside one.
Measured is the most that the process had in memory (its resident set), by the system's account: weights and
activations, and Python, torch, what the libraries of products hold, and fragments of the heap.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch

from neural.compiler import load
from neural.planning.plan import plan
from neural.training.metrics import read_metrics

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
LLAMA = {"n_layer": 8, "d_model": 512, "n_head": 8, "n_kv_head": 4, "d_ff": 1376, "context": 512, "vocab_size": 50257}
# The example, what is set in it, its batch, forward passes in a step.
SIZES = {
    "gpt2": ("gpt2", {"dropout": 0.0, "context": 512}, 2, 1),
    "gpt2-8": ("gpt2", {"dropout": 0.0, "context": 512}, 8, 1),
    "gpt2-long": ("gpt2", {"dropout": 0.0, "context": 1024}, 4, 1),
    "llama": ("llama", LLAMA, 8, 1),
    "big": ("shakespeare_char", {"n_layer": 6, "n_head": 6, "d_model": 384, "context": 256, "dropout": 0.2}, 64, 1),
    "words": ("gpt2", {"n_layer": 2, "d_model": 64, "n_head": 2, "context": 64}, 12, 40),
}
WHICH = ("size", "precision", "activation_checkpointing")  # of the rows
STEPS = 4  # the optimizer's moments are there from the end of the first, and the last waits for no checkpoint
TEXT = "the quick brown fox jumps over a lazy dog and sings of liquor, jugs and zephyrs while we box\n" * 2000


def program_of(example: str, batch: int, passes: int, precision: str, again: bool, folder: Path) -> Path:
    """The example with that batch, in so many forward passes a step."""
    sizes = f"batch_size: {batch} gradient_accumulation: {passes}"
    train = f"train {{ steps: {STEPS} {sizes} gradient_clip: 1.0 log_every: 1 save_every: 2 eval_batches: 1 }}"
    execution = f'execution {{ device: "cpu" precision: "{precision}" activation_checkpointing: {str(again).lower()} }}'
    text = (EXAMPLES / f"{example}.neural").read_text()
    path = folder / f"{example}.neural"
    path.write_text(re.sub(r"train \{[^}]*\}", f"{train}\n  {execution}", text))
    return path


def measure(size: str, precision: str, again: bool) -> dict[str, Any]:
    """Planned and measured bytes of one training, and its speed in its last step."""
    example, sets, batch, passes = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        file = program_of(example, batch, passes, precision, again, folder)
        made = plan(load(file, sets, None), device="cpu")
        given = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        where = ["--data", folder / "text.txt", "--out", folder / "run", "--force"]
        command = [sys.executable, "-m", "neural", "train", file, *where, *given]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        last = [record for record in read_metrics(folder / "run" / "metrics.jsonl") if record["kind"] == "train"][-1]
    planned, measured = made.training.total, last["memory"]
    return {
        "size": size,
        "precision": precision,
        "activation_checkpointing": again,
        "planned_bytes": planned,
        "peak": made.training.peak,
        "measured_bytes": measured,
        "measured_over_planned": measured / planned,
        "tokens_per_second": last["tokens_per_second"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SIZES), help="which sizes, with commas")
    parser.add_argument("--precision", default="float32,bfloat16", help="which, with commas")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="the folder for results")
    arguments = parser.parse_args()
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "libc": " ".join(platform.libc_ver())}
    for size, precision, again in product(arguments.only.split(","), arguments.precision.split(","), (False, True)):
        row = measure(size, precision, again)
        what = f"{size:9} {precision:8}  {'blocks again' if again else 'all kept':12}"
        planned, measured = (f"{row[name] / 2**20:6,.0f} MiB" for name in ("planned_bytes", "measured_bytes"))
        ratio, speed = f"{row['measured_over_planned']:.3f}", f"{row['tokens_per_second']:7,.0f} tokens/s"
        print(f"{what}  planned {planned}  measured {measured}  {ratio}  {speed}", flush=True)
        now = datetime.now(UTC)
        path = arguments.output / f"plan_memory_{now:%Y-%m-%d}.json"
        before = json.loads(path.read_text())["rows"] if path.exists() else []
        others = [r for r in before if any(r[name] != row[name] for name in WHICH)]
        head = {"date": now.isoformat(timespec="seconds"), "machine": machine, "torch": str(torch.__version__)}
        path.write_text(json.dumps(head | {"rows": [*others, row]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
