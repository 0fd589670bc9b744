"""The command line as a process of its own, with an exit code and streams, that need not import torch first."""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.forked.context import CONTEXT
from tests.forked.server import serve

CLIENT = Path(__file__).with_name("client.py")


@cache
def command() -> list[str]:
    """What stands for `neural` before its arguments. A signal that ends a process is passed on, SIGKILL a little later."""
    path = Path(tempfile.mkdtemp(prefix="neural-tests-"), "commands")
    atexit.register(shutil.rmtree, path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        CONTEXT.Process(target=serve, args=(listening,), daemon=True).start()
    return [sys.executable, "-I", "-S", str(CLIENT), str(path)]


def neural(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end. `options` are those of `subprocess.run`."""
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([*command(), *map(str, arguments)], **options)
