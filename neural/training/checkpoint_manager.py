"""The checkpoints of a run: which there are, which is the latest whole one, which the best, and which to keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from neural.diagnostics.diagnostic import Diagnostic, NeuralError, Severity, fail
from neural.diagnostics.near import nearest
from neural.training.checkpoint import MARK, NAME, Checkpoint, TrainingState, checkpoint_name
from neural.training.checkpoint_writing import save
from neural.training.distributed.parallel import Parallel
from neural.training.durable import TEMPORARY, remove_tree

Warn = Callable[[Diagnostic], None]


@dataclass(frozen=True, slots=True)
class CheckpointManager:
    """`folder` is a run's `checkpoints/`."""

    folder: Path

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are marked complete, lowest first."""
        if not self.folder.is_dir():
            return []
        names = (NAME.fullmatch(path.name) for path in self.folder.iterdir() if (path / MARK).exists())
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        return self.folder / checkpoint_name(step)

    def open(self, name: str, warn: Warn) -> Checkpoint:
        """The checkpoint called "latest", "best" or "step-000100".

        NeuralError N857 if there is none of that name, N856 if the one asked for by name is damaged.
        """
        if name == "latest":
            return self.latest(warn) or self._none("no checkpoint yet")
        if name == "best":
            step = self.best_step()
            return (
                self._none("no checkpoint with a validation loss") if step is None else Checkpoint.open(self.path(step))
            )
        known = {checkpoint_name(step) for step in self.steps()}
        if name not in known:
            near = nearest(name, known | {"latest", "best"})
            self._none(f"no checkpoint {name!r}", f"did you mean {near!r}?" if near else None)
        return Checkpoint.open(self.folder / name)

    def _none(self, what: str, suggestion: str | None = None) -> Checkpoint:
        known = ", ".join(checkpoint_name(step) for step in self.steps())
        fail(
            "N857",
            f"{self.folder.parent} has {what}",
            notes=(f"it has {known}",) if known else (),
            hint=suggestion
            or ("take one of these" if known else "train it first: neural train --resume " + str(self.folder.parent)),
        )

    def latest(self, warn: Warn) -> Checkpoint | None:
        """The newest whole checkpoint; `warn` is told of each damaged one that it skips. None if there is none at all.

        NeuralError N856 if there are checkpoints, and every one is damaged.
        """
        failures: list[Diagnostic] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = Checkpoint.open(self.path(step))
            except NeuralError as error:
                if not self.path(step).exists():  # the trainer that runs beside us removed it: there are newer ones
                    return self.latest(warn)
                failures.extend(error.diagnostics)
                continue
            for failure in failures:
                hint = f"going on from {checkpoint.path.name}, the last whole one"
                warn(replace(failure, severity=Severity.WARNING, hint=hint))
            return checkpoint
        if failures:
            raise NeuralError(*failures)
        return None

    def best_step(self) -> int | None:
        """The step of the lowest validation loss among the checkpoints that were evaluated."""
        losses = {step: self._validation_loss(step) for step in self.steps()}
        evaluated = {step: loss for step, loss in losses.items() if loss is not None}
        return min(evaluated, key=lambda step: (evaluated[step], step)) if evaluated else None

    def _validation_loss(self, step: int) -> float | None:
        try:
            return json.loads((self.path(step) / "state.json").read_text())["validation_loss"]
        except (OSError, ValueError, KeyError):  # damaged: whoever opens it says so
            return None

    def save(self, parallel: Parallel, optimizer: torch.optim.Optimizer, state: TrainingState, keep: int) -> Path:
        """Write a checkpoint, then remove all but the newest `keep` and the best one. All processes call it."""
        path = save(self.folder, parallel, optimizer, state)
        if parallel.world.leads:
            self.prune(keep)
        return path

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` and the best one."""
        kept = {*self.steps()[-max(keep, 1) :], self.best_step()}
        for step in self.steps():
            if step not in kept:
                remove_tree(self.path(step))

    def clean(self, resumed: int | None) -> None:
        """Remove what a crash left half-written, and set aside damaged checkpoints newer than the one resumed from.

        Only for the holder of the run's lock. Set aside, a damaged one no longer counts among the newest to keep.
        """
        if not self.folder.is_dir():
            return
        for path in list(self.folder.iterdir()):
            if path.name.startswith(TEMPORARY) or (NAME.fullmatch(path.name) and not (path / MARK).exists()):
                remove_tree(path)
        for step in self.steps():
            if resumed is not None and step > resumed:
                aside = self.folder / f"damaged-{checkpoint_name(step)}"
                if aside.exists():
                    remove_tree(aside)
                self.path(step).rename(aside)
