"""The runs below a folder, and how each of them stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neural.diagnostics.diagnostic import NeuralError, fail
from neural.training.checkpoint import checkpoint_name
from neural.training.lock import RunLock
from neural.training.metrics import read_metrics
from neural.training.run import Run


@dataclass(frozen=True, slots=True)
class Overview:
    """One run. The numbers are None where there are none, and all of them where the run does not read."""

    path: Path
    state: str  # "running", "created", "stopped", "crashed", "finished", "failed", "quantized", or "unreadable"
    network: str | None = None
    step: int | None = None  # the newest that was measured or saved; of a quantised run that of its source
    total_steps: int | None = None
    loss: float | None = None  # of training, nats a token, the newest
    validation_loss: float | None = None  # the lowest
    size: int | None = None  # bytes on the disk
    resumes_from: str | None = (
        None  # the checkpoint that --resume goes on from, "start", or None: nothing to go on with
    )
    problem: str | None = None  # why it does not read


def find_runs(folder: Path) -> tuple[Overview, ...]:
    """The runs in `folder` and below it, itself among them, by path. NeuralError N832 if there is no such folder."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        fail("N832", f"{folder} {what}, so it holds no runs", hint="give the folder that runs were written to")
    return tuple(overview(path) for path in sorted(_run_folders(folder)))


def overview(path: Path) -> Overview:
    """How the run at `path` stands. What is damaged is said in it, not raised."""
    try:
        run = Run.open(path)
        records = read_metrics(path / "metrics.jsonl")
    except NeuralError as error:
        return Overview(path, "unreadable", size=_size(path), problem=error.diagnostics[0].title)
    saved = run.checkpoints.steps()
    state = _state(run)
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    validations = [record["loss"] for record in records if record["kind"] == "validation"]
    return Overview(
        path,
        state,
        run.record.network,
        max([_origin_step(run), *saved[-1:], *(record["step"] for record in records[-1:])]),
        run.record.steps,
        losses[-1] if losses else None,
        min(validations, default=None),
        _size(path),
        _resumable(state, saved),
    )


def _state(run: Run) -> str:
    """What run.json says, but for a training that is under way or was cut off: the lock tells these apart."""
    if RunLock(run.path).is_held():
        return "running"
    return "crashed" if run.record.state == "training" else run.record.state


def _origin_step(run: Run) -> int:
    return run.record.quantization.step or 0 if run.record.quantization else 0


def _resumable(state: str, saved: list[int]) -> str | None:
    if state in ("running", "finished", "quantized"):
        return None
    return checkpoint_name(saved[-1]) if saved else "start"


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a run.json, none of them inside another."""
    for path, folders, files in os.walk(folder):
        if "run.json" in files:
            yield Path(path)
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]


def _size(folder: Path) -> int:
    """Bytes of the files; those that vanish meanwhile do not count."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue
    return total
