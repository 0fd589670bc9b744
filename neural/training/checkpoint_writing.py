"""Checkpoints to the disk: written beside, flushed, renamed, marked complete last, by one process or by several.

Each writer writes what it holds, and nothing is gathered. None goes on before all know how it went with all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from neural.data.durable import sync
from neural.training.checkpoint import (
    FORMAT,
    MARK,
    MODEL,
    OPTIMIZER,
    STATE,
    TrainingState,
    checkpoint_name,
    optimizer_tensors,
    tensor_file,
)
from neural.training.distributed.parallel import Parallel
from neural.training.distributed.world import World
from neural.training.durable import TEMPORARY, remove_tree, write_json
from neural.training.tensor_file import FileRecord, Piece, write_pieces
from neural.training.weights import weights


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one of the writers puts into a checkpoint. buffers: those of `model` that a forward pass changes."""

    name: str
    model: dict[str, Piece]
    moments: dict[str, Piece]
    state: dict[str, Any]
    buffers: frozenset[str]

    @classmethod
    def take(cls, parallel: Parallel, optimizer: torch.optim.Optimizer, state: TrainingState) -> Self:
        """Of the tensors themselves: the next step changes them. All writers call it."""
        model, moments = weights(parallel.model), optimizer_tensors(parallel.model, optimizer)
        said, buffers = state.to_json(parallel.model), frozenset(name for name, _ in parallel.model.named_buffers())
        return cls(checkpoint_name(state.step), parallel.pieces(model), parallel.pieces(moments), said, buffers)

    @property
    def nbytes(self) -> int:
        return sum(piece.tensor.nbytes for piece in (*self.model.values(), *self.moments.values()))

    @property
    def device(self) -> str:
        """Where the weights are: "cpu" or "cuda"."""
        return next((piece.tensor.device.type for piece in self.model.values()), "cpu")

    def copied(self, *, everything: bool) -> Self:
        """With copies on the host, which the next step does not touch; or only of what it changes before its update."""
        model, moments = (
            {name: piece.copied() if everything or name in self.buffers else piece for name, piece in pieces.items()}
            for pieces in (self.model, self.moments)
        )
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return replace(self, model=model, moments=moments)


def save(folder: Path, parallel: Parallel, optimizer: torch.optim.Optimizer, state: TrainingState) -> Path:
    """Write `folder/step-NNNNNN` so that a crash at any moment leaves either none or a whole one.

    All processes call it. OSError where the system refuses (a full disk); what was there before stays whole, and
    nothing half-written is left.
    """
    if parallel.writers is not None:
        write(folder, Snapshot.take(parallel, optimizer, state), parallel.writers)
    return folder / checkpoint_name(state.step)


def write(folder: Path, snapshot: Snapshot, writers: World) -> None:
    """What `save` does, of a snapshot. All `writers` call it, each with its own."""
    beside = folder / f"{TEMPORARY}{snapshot.name}"
    _together(writers, lambda: _prepare(beside) if writers.leads else None)
    try:
        records = _together(writers, lambda: _write_tensors(beside, snapshot, writers))
        files = {name: record for told in records for name, record in told.items()}
        _together(writers, lambda: _complete(folder, snapshot, files) if writers.leads else None)
    except BaseException:
        if writers.leads and beside.exists():
            remove_tree(beside)
        raise


def _together(writers: World, work: Callable[[], Any]) -> list[Any]:
    """Everybody's results, which are JSON, in the order of ranks. OSError everywhere if one of them met one."""
    failure: BaseException | None = None
    told: dict[str, Any] = {}
    try:
        told["result"] = work()
    except OSError as error:
        failure = error
        told["failed"] = [error.errno, error.strerror, str(error.filename)]
    everybody = [json.loads(text) for text in writers.texts(json.dumps(told))] if writers.size > 1 else [told]
    if failure is not None:
        raise failure
    for other in everybody:
        if "failed" in other:
            raise OSError(*other["failed"])
    return [other["result"] for other in everybody]


def _prepare(beside: Path) -> None:
    if beside.exists():
        remove_tree(beside)
    beside.mkdir(parents=True)


def _write_tensors(beside: Path, snapshot: Snapshot, writers: World) -> dict[str, Any]:
    """The files of this writer, each with its size and hash."""
    kinds = {MODEL: snapshot.model, OPTIMIZER: snapshot.moments}
    names = {kind: tensor_file(kind, writers.rank, writers.size) for kind in kinds}
    return {names[kind]: asdict(write_pieces(beside / names[kind], pieces)) for kind, pieces in kinds.items()}


def _complete(folder: Path, snapshot: Snapshot, files: dict[str, Any]) -> None:
    path, beside = folder / snapshot.name, folder / f"{TEMPORARY}{snapshot.name}"
    write_json(beside / STATE, snapshot.state)
    files = {**files, STATE: asdict(FileRecord.of(beside / STATE))}
    if path.exists():
        remove_tree(path)
    beside.rename(path)
    sync(folder)
    try:
        write_json(path / MARK, {"format": FORMAT, "files": files})
    except BaseException:
        remove_tree(path)
        raise
