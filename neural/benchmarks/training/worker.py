"""One contender in a process of its own: python -m neural.benchmarks.training.worker FOLDER NAME [NANOGPT]."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
import torch

from neural.benchmarks.training.contenders import Step, Task, contender
from neural.training.allocation import memory_for
from neural.training.loss import Batch
from neural.training.meter import fastest_product, memory_peak
from neural.training.session import to_device
from neural.training.unread import APART

SIDE = {"cpu": 2048, "cuda": 8192}  # of the products that say what the machine can do


def batch(ids: np.ndarray, device: torch.device) -> Batch:
    """int64 (B, T + 1) as inputs and targets."""
    return to_device((np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])), device)


def timed(step: Step, batches: Sequence[Batch]) -> tuple[list[float], list[float]]:
    """The losses, and the seconds that each step took: a device that computes on its own is read after the last one."""
    losses, seconds, began = [], [], time.perf_counter()
    if batches[0][0].device.type in APART:
        losses = torch.stack([step(each) for each in batches]).tolist()
        return losses, [(time.perf_counter() - began) / len(batches)] * len(batches)
    for each in batches:
        losses.append(step(each).item())
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
    return losses, seconds


def cores_busy(before: tuple[float, ...] = (0.0, 0.0, 0.0)) -> tuple[float, float, float]:
    """The time, the seconds in which others used a core, and how many cores they used at once since `before`.

    0 where a system has no /proc. A measurement beside others' work is one of the machine's, not of the program.
    """
    now, others = time.perf_counter(), 0.0
    if Path("/proc/stat").exists():
        user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:9])
        others = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - time.process_time()
    return now, others, max(0.0, others - before[1]) / (now - before[0])


def measure(task: Task, name: str, nanogpt: Path | None) -> dict[str, object]:
    ids, device = np.load(task.folder / "ids.npy"), task.device  # (steps, B, T + 1)
    batches = [batch(each, device) for each in ids]
    kind, side = getattr(torch, task.precision), SIDE[device.type]
    peak = fastest_product(device, kind, side)
    torch.manual_seed(1)
    began = time.perf_counter()
    step = contender(name, task, nanogpt)
    first, _ = timed(step, batches[: task.warm])
    warmed = time.perf_counter() - began
    before = cores_busy()
    losses, seconds = timed(step, batches[task.warm :])
    return {
        "cores_of_others": cores_busy(before)[2],
        "tokens_per_second": batches[0][1].numel() / statistics.median(seconds),
        "seconds_until_warm": warmed,
        "peak_bytes": memory_peak(device),
        "matmul_flops": max(peak, fastest_product(device, kind, side)),
        "losses": first + losses,
    }


if __name__ == "__main__":
    where, who, *checkout = sys.argv[1:]
    task = Task.read(Path(where))
    memory = memory_for(task.on, checkpointing=task.checkpointing) if who == "neural" else nullcontext()
    with redirect_stdout(sys.stderr), memory:
        found = measure(task, who, Path(checkout[0]) if checkout else None)
    print(json.dumps(found))
