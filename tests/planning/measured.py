"""What a training allocates, by torch's own account of its allocator: exact, whatever else the process holds."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from neural.training import cpu_products
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import ALONE, World, joined
from neural.training.run import Run
from neural.training.session import start
from tests.training.distributed.workers import enter, together

STEPS = 2  # the optimizer's moments are there from the end of the first


def peak_of_training(run: Run, world: World = ALONE, layout: Layout | None = None) -> int:
    """Bytes at the peak of a training of some steps, from before there was a model."""
    gc.collect()  # what an earlier test left would be freed while we count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        session = start(run, torch.device("cpu"), world, layout)
        for _ in range(STEPS):
            session.advance()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def peak_together(run: Run, size: int, strategy: str, tensor: int | None) -> int:
    """Of the process, of so many, that allocates the most."""
    together(_peak, size, run.path, strategy, tensor)
    return max(int(file.read_text()) for file in run.path.glob("peak.*"))


def _peak(rank: int, size: int, port: int, path: Path, strategy: str, tensor: int | None) -> None:
    enter(rank, size, port)
    cpu_products.family = lambda: 0  # as in this folder's conftest
    cpu, run = torch.device("cpu"), Run.open(path)
    with joined(cpu) as world:
        peak = peak_of_training(run, world, Layout.chosen(run.program, cpu, size, strategy, tensor))
    (path / f"peak.{rank}").write_text(str(peak))
