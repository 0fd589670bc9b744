"""Checkpoints beside the training: a thread writes one while the next steps are done."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from neural.training.checkpoint import TrainingState
from neural.training.checkpoint_manager import CheckpointManager
from neural.training.checkpoint_writing import Snapshot, write
from neural.training.distributed.parallel import Parallel

SMALL = 2**24  # bytes that are copied in any case: a fiftieth of what a process needs besides
ROOM = 0.5  # the share of the host's free memory that a copy from a GPU may take


class Saver:
    """`with Saver(...) as saver:` writes a training's checkpoints, one at a time, and ends when the last is whole.

    The order on the disk is that of `write`: a crash loses what is under way, never what is finished. Weights and
    moments are read where they are, and the next update, which comes after a forward and a backward pass, waits until
    they are read: memory has them once. What is small, or on a GPU, is copied, and no update waits.
    """

    def __init__(
        self, checkpoints: CheckpointManager, parallel: Parallel, optimizer: torch.optim.Optimizer, keep: int
    ) -> None:
        self.checkpoints, self.parallel, self.optimizer, self.keep = checkpoints, parallel, optimizer, keep
        self.writers = None if parallel.writers is None else parallel.writers.apart()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._lent = False  # whether what is written is what the optimizer changes
        self._hook = optimizer.register_step_pre_hook(self._before_update)

    def save(self, state: TrainingState, *, wait: bool) -> None:
        """Begin to write a checkpoint of this moment, once the one before is whole. All processes call it.

        Where the caller has nothing to do meanwhile (`wait`), it is written at once. OSError of this one or the one
        before.
        """
        self.wait()
        if self.writers is None:
            return
        snapshot = Snapshot.take(self.parallel, self.optimizer, state)
        if wait:
            self._write(snapshot)
            return
        room = ROOM * _free_memory() if snapshot.device == "cuda" else 0
        self._lent = snapshot.nbytes > max(SMALL, room)
        own = snapshot.copied(everything=not self._lent)
        self._thread = threading.Thread(target=self._try, args=(own,), name="checkpoint", daemon=True)
        self._thread.start()

    def _before_update(self, *_: object) -> None:
        if self._lent:
            self.wait()

    def check(self) -> None:
        """OSError if the checkpoint under way has failed."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until the checkpoint under way is whole. OSError if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread, self._lent = None, False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _try(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except BaseException as error:
            self._failure = error

    def _write(self, snapshot: Snapshot) -> None:
        write(self.checkpoints.folder, snapshot, self.writers)
        if self.writers.leads:
            self.checkpoints.prune(self.keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hook.remove()
        try:
            self.wait()
        except BaseException:
            if error is None:  # else that one is told
                raise


def _free_memory() -> int:
    """Bytes that can be taken without swapping (Linux), or none known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 0
