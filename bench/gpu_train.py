"""GPT-2 124M on a GPU beside nanoGPT compiled, in turn in one process: tokens a second, share of the matmul peak.

    python bench/gpu_train.py --nanogpt ../nanoGPT [--batch 32] [--rounds 5] [--steps 20]

bfloat16, context 1,024, the same weights and batches. nanoGPT also with the vocabulary that it pads to 50,304. Results:
bench/results/train_gpu_<date>.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from train import GPT2, program_of

from neural.benchmarks.training.comparison import WARM, prepare
from neural.benchmarks.training.contenders import Step, Task, contender
from neural.benchmarks.training.worker import SIDE, batch, timed
from neural.compiler import load
from neural.planning.plan import plan
from neural.training.loss import Batch
from neural.training.meter import fastest_product

HERE = Path(__file__).parent
CUDA = torch.device("cuda")
PADDED = 50304


def padded(task: Task, folder: Path) -> Task:
    """The same for nanoGPT with rows of 0 behind its table of tokens. Its loss has them in the softmax."""
    (folder / "hf").mkdir()
    config = json.loads((task.folder / "hf" / "config.json").read_text())
    (folder / "hf" / "config.json").write_text(json.dumps(config | {"vocab_size": PADDED}))
    tensors = load_file(task.folder / "hf" / "model.safetensors")
    for name in [n for n in tensors if n.endswith(("wte.weight", "lm_head.weight"))]:
        tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, PADDED - len(tensors[name]))).contiguous()
    save_file(tensors, folder / "hf" / "model.safetensors")
    return replace(task, folder=folder)


def measured(steps: dict[str, Step], batches: list[Batch], rounds: int, flops: int) -> dict[str, Any]:
    """Rounds of all, one after the other; the matmul peak is measured before each turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    tokens = batches[0][1].numel()
    for number in range(1, rounds + 1):
        for name, step in steps.items():
            peak = fastest_product(CUDA, torch.bfloat16, SIDE["cuda"])
            _, seconds = timed(step, batches)
            speed = tokens / statistics.median(seconds)
            found[name].append({"tokens_per_second": speed, "peak": peak, "share_of_peak": speed * flops / peak})
            print(f"round {number}: {name:24} {speed:>10,.0f} tokens/s {speed * flops / peak:6.1%}", flush=True)
    medians = {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in found.items()}
    return {"medians": medians, "rounds": found}


def kernels(step: Step, batches: list[Batch]) -> str:
    """What a step of ours spends its time in."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        timed(step, batches)
    return profile.key_averages().table(sort_by="device_time_total", row_limit=40, max_name_column_width=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--profile", type=Path, help="a file for the kernels of our steps")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="the folder for results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        program = load(program_of("gpt2", arguments.batch, Path(one)), GPT2, None)
        how = {"steps": arguments.steps, "peers": True, "precision": "bfloat16", "device": "cuda"}
        task = prepare(program, GPT2, Path(one), **how)
        batches = [batch(ids, CUDA) for ids in np.load(task.folder / "ids.npy")]
        checkout = arguments.nanogpt.resolve()
        steps = {
            "neural": contender("neural", task, None),
            "nanogpt-compiled": contender("nanogpt-compiled", task, checkout),
            "nanogpt-compiled, padded": contender("nanogpt-compiled", padded(task, Path(other)), checkout),
        }
        losses = {name: timed(step, batches[:WARM])[0] for name, step in steps.items()}
    print(losses, flush=True)
    result = measured(steps, batches[WARM:], arguments.rounds, plan(program).flops_per_token_training)
    if arguments.profile:
        arguments.profile.write_text(kernels(steps["neural"], batches[WARM : WARM + 3]))
    now = datetime.now(UTC)
    head = {
        "date": now.isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    head |= {"batch": arguments.batch, "context": program.context, "precision": "bfloat16", "first_losses": losses}
    path = arguments.output / f"train_gpu_{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(head | result, indent=1) + "\n")
    print(json.dumps(result["medians"], indent=1), path, sep="\n")


if __name__ == "__main__":
    main()
