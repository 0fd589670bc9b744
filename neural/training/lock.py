"""One trainer to a run: an exclusive lock on a file that the system frees when the process dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from neural.diagnostics.diagnostic import fail


class RunLock:
    """`with RunLock(folder):` holds the folder's `lock` file (flock); NeuralError N852 if another process does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free. True if this object now holds it."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def is_held(self) -> bool:
        """Whether a trainer has the run, without taking it from anyone."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self) -> None:
        """Free the lock. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try_again(self) -> bool:
        """Once more: `is_held` of another process has the lock for microseconds."""
        time.sleep(0.05)
        return self.try_acquire()

    def __enter__(self) -> Self:
        if not self.try_acquire() and not self._try_again():
            holder = (self.folder / "lock").read_text().strip()
            fail(
                "N852",
                f"{self.folder} is in use by another process" + (f" ({holder})" if holder else ""),
                notes=("two trainers in one run would overwrite each other's checkpoints",),
                hint="wait for it, stop it with Ctrl-C (it saves first), or train into another folder with --out",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
