"""What the system has too little of for a training, disk or memory, as messages that say what is safe."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from neural.diagnostics.amounts import size
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.out_of_memory import asked_for, is_out_of_memory
from neural.training.run import Run

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def shortage_is_said(run: Run, again: str) -> Iterator[None]:
    """A full disk, a quota or a limit on file sizes as N859, memory that ran out as N812. again: how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        fail(
            "N859",
            f"the disk took no more while {run.path} was trained: {error.strerror}",
            notes=(
                f"{_safe(run)}; nothing half-written was left",
                f"free there: {size(shutil.disk_usage(run.path).free)}",
            ),
            hint=f"make room, then go on: {again}",
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(
            "N812",
            f"memory ran out while {run.path} was trained{asked_for(error)}",
            notes=(_safe(run),),
            hint=f"free some, then go on: {again}",
        )


def _safe(run: Run) -> str:
    steps = run.checkpoints.steps()
    return f"{run.checkpoints.path(steps[-1])} is whole" if steps else "there was no checkpoint yet"
