"""One contender in a process of its own: python -m neural.benchmarks.training.worker FOLDER NAME [NANOGPT]."""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from neural.benchmarks.training.contenders import contender
from neural.training.allocation import memory_held
from neural.training.loss import Batch
from neural.training.meter import memory_peak

SIDE, TRIES = 2048, 8  # of the products that say what the machine can do


def matmul_peak() -> float:
    """Operations a second in the fastest of some large products, float32."""
    a, fastest = torch.ones(SIDE, SIDE), float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * SIDE**3 / fastest


def batch(ids: np.ndarray) -> Batch:
    """int64 (B, T + 1) as inputs and targets."""
    whole = torch.from_numpy(ids)
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def measure(folder: Path, name: str, nanogpt: Path | None) -> dict[str, object]:
    ids = np.load(folder / "ids.npy")  # (steps, B, T + 1)
    warm = json.loads((folder / "bench.json").read_text())["warm"]
    peak = matmul_peak()
    torch.manual_seed(1)
    began = time.perf_counter()
    step = contender(name, folder, nanogpt)
    losses, seconds = [], []
    for i, each in enumerate(ids):
        start = time.perf_counter()
        losses.append(step(batch(each)))
        seconds.append(time.perf_counter() - start)
        if i + 1 == warm:
            warmed = time.perf_counter() - began
    tokens = ids[0, :, 1:].size
    return {
        "tokens_per_second": tokens / statistics.median(seconds[warm:]),
        "seconds_until_warm": warmed,
        "peak_bytes": memory_peak(torch.device("cpu")),
        "matmul_flops": max(peak, matmul_peak()),
        "losses": losses,
    }


if __name__ == "__main__":
    where, who, *checkout = sys.argv[1:]
    with redirect_stdout(sys.stderr):
        if who == "neural":
            with memory_held():
                found = measure(Path(where), who, None)
        else:
            found = measure(Path(where), who, Path(checkout[0]) if checkout else None)
    print(json.dumps(found))
