"""What a process does as one of several: watch whoever started it, and tell a lost connection from other errors."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neural.diagnostics.diagnostic import fail
from neural.training.distributed.launch import LAUNCHED, LOST
from neural.training.distributed.world import World, joined

SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "NCCL")


@contextmanager
def working(device: torch.device) -> Iterator[World]:
    """The world that this process belongs to, see `joined`.

    Where `launch` started it, it stops (as at SIGTERM) when the launcher dies, and ends with LOST when another worker
    does. Under other launchers the latter is NeuralError N841.
    """
    ours = LAUNCHED in os.environ
    if ours:
        threading.Thread(target=_watch_launcher, daemon=True).start()
    try:
        with joined(device) as world:
            yield world
    except RuntimeError as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
        if ours:
            sys.stderr.flush()
            os._exit(LOST)  # the process group cannot be taken down in order: the other side is gone
        fail(
            "N841", f"the connection to another worker was lost: {str(error).splitlines()[0]}", hint="see what it said"
        )


def _watch_launcher() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would keep the interpreter from ending
        pass
    os.kill(os.getpid(), signal.SIGTERM)
