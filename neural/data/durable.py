"""Writing that leaves nothing half-written: beside its place, flushed to the disk, then renamed into it."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_place(path: Path) -> None:
    """OSError, before any work is done, if a file cannot be written there: no folder, or one itself."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        code = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(path.parent))  # of the class that Python has for the code


def check_folder(path: Path) -> None:
    """OSError, before any work is done, if nothing can be written into a folder, or the folder cannot be made."""
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(above).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(above))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. OSError as the system gives it, with nothing left beside `path`."""
    check_place(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)  # mkstemp's file is its owner's alone
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes when it does not.

    `target` must not exist, or be empty. What a killed process left beside it is removed; a process that still
    writes there holds a lock (flock) on its folder and is left alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.partial-"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):
        descriptor = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
        folder.chmod(0o755)
        sync(folder)
        folder.replace(target)
        sync(target.parent)
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)  # gone already where the rename was done
