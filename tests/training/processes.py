"""Trainers in processes of their own, to be killed, interrupted, or given a disk that is full."""

from __future__ import annotations

import json
import resource
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.training.loop import train
from neural.training.run import Run
from tests.forked.context import CONTEXT


def start_training(run: Path, *, largest_file: int | None = None) -> BaseProcess:
    """A process that trains the run. `largest_file`: bytes after which its files take no more (RLIMIT_FSIZE)."""
    process = CONTEXT.Process(target=_train, args=(run, largest_file), daemon=True)
    process.start()
    return process


def _train(run: Path, largest_file: int | None) -> None:
    torch.set_num_threads(1)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        outcome = train(Run.open(run))
        said = {"state": outcome.state, "step": outcome.step, "stopped_by": outcome.stopped_by}
    except NeuralError as error:
        diagnostic = error.diagnostics[0]
        said = {"code": diagnostic.code, "title": diagnostic.title, "notes": diagnostic.notes}
    outcome_file(run).write_text(json.dumps(said))


def outcome_file(run: Path) -> Path:
    """Where a process says how its training ended."""
    return run.with_name(f"{run.name}.outcome.json")
