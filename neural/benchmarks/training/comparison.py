"""Rounds of contenders, one after the other, and what came out."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from neural.backends.module import load_module
from neural.benchmarks.training.contenders import Task
from neural.compiler import Program
from neural.diagnostics.diagnostic import fail
from neural.interop import huggingface
from neural.interop.decoder import Checkpoint
from neural.interop.recognition import from_network, recognize
from neural.planning.plan import plan
from neural.planning.precision import FULL
from neural.training.weights import weights

WARM = 2  # steps that are not timed
BUSY = 0.1  # cores that others use, from which on they are told


def prepare(
    program: Program,
    sets: dict[str, Any],
    folder: Path,
    *,
    steps: int,
    peers: bool,
    precision: str = FULL,
    device: str = "cpu",
) -> Task:
    """What every contender starts from: weights, as we and as others name them, and the ids of `steps` batches."""
    torch.manual_seed(0)
    model = getattr(load_module(program.source("pytorch"), program.name), program.name)()
    own = weights(model)
    save_file({name: tensor.contiguous() for name, tensor in own.items()}, folder / "ours.safetensors")
    (folder / "program.neural").write_bytes(Path(program.path).read_bytes())
    bias = any(name.endswith(".bias") for name in own)
    again = bool(program.settings.execution.get("activation_checkpointing"))
    task = Task(folder, program.name, sets, bias, again, precision, device, WARM)
    task.write()
    if peers:
        recognized = recognize(program.graph)
        tensors = from_network(recognized, {name: tensor.numpy() for name, tensor in own.items()})
        (folder / "hf").mkdir()
        huggingface.write(Checkpoint(recognized.decoder, tensors), folder / "hf")
    shape = (WARM + steps, program.settings.train.batch_size, program.context + 1)
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, program.vocab_size, shape))
    return task


def run_worker(folder: Path, name: str, nanogpt: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "neural.benchmarks.training.worker", str(folder), name]
    done = subprocess.run([*command, *([str(nanogpt)] if nanogpt else [])], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        fail("N876", f"{name} ended with an error: {said}", hint="leave it out with --against")
    return json.loads(done.stdout)


def compare(
    program: Program,
    sets: dict[str, Any],
    contenders: tuple[str, ...],
    nanogpt: Path | None,
    *,
    rounds: int,
    steps: int,
    tell: Callable[[str], None],
    precision: str = FULL,
    device: str = "cpu",
) -> dict[str, Any]:
    """All rounds, and the medians. tell: is given a line after each. precision: of everybody's products."""
    flops = plan(program).flops_per_token_training
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peers = len(contenders) > 1
        prepare(program, sets, folder, steps=steps, peers=peers, precision=precision, device=device)
        for number in range(1, rounds + 1):
            for who in contenders:
                one = run_worker(folder, who, nanogpt)
                one["share_of_peak"] = one["tokens_per_second"] * flops / one["matmul_flops"]
                found[who].append(one)
                tell(f"round {number}: {line(who, one)}")
    numbers = [name for name in found["neural"][0] if name != "losses"]
    medians = {who: {n: statistics.median(r[n] for r in rows) for n in numbers} for who, rows in found.items()}
    ours = found["neural"][0]["losses"]
    for who, rows in found.items():
        medians[who]["largest_loss_difference"] = max(abs(a - b) for a, b in zip(ours, rows[0]["losses"], strict=True))
    return {"medians": medians, "rounds": found}


def line(who: str, numbers: dict[str, Any]) -> str:
    speed, memory = f"{numbers['tokens_per_second']:,.0f} tokens/s", f"{numbers['peak_bytes'] / 2**20:,.0f} MiB"
    others = f"  beside others on {numbers['cores_of_others']:.1f} cores" if numbers["cores_of_others"] > BUSY else ""
    return f"{who:16} {speed:>18}  {numbers['share_of_peak']:5.1%} of the peak  {memory:>11}{others}"
