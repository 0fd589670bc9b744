"""What a training allocates, by torch's own account of its allocator: exact, whatever else the process holds."""

from __future__ import annotations

import gc

import torch
from torch.profiler import ProfilerActivity, profile

from neural.training.run import Run
from neural.training.session import start

STEPS = 2  # the optimizer's moments are there from the end of the first


def peak_of_training(run: Run) -> int:
    """Bytes at the peak of a training of some steps, from before there was a model."""
    gc.collect()  # what an earlier test left would be freed while we count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        session = start(run, torch.device("cpu"))
        for _ in range(STEPS):
            session.advance()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
