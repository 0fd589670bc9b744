"""Ctrl-C at moments at which an exception alone would not end the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Stands for torch, which takes any exception in NumPy's loading for a NumPy that is not there.
LOADS_TORCH = """
import signal, sys, types
from importlib.machinery import ModuleSpec
from neural import cli
import neural.cli.app
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
def command(**_):
    torch = types.ModuleType("torch")
    torch.__spec__ = ModuleSpec("torch", None)
    torch.__spec__._initializing = {loading}
    sys.modules["torch"] = torch
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        if {loading}:
            sys.exit(7)
        raise
neural.cli.app.app = command
cli.main()
"""


@pytest.mark.parametrize("loading", [True, False])
def test_ctrl_c_ends_it_whatever_catches(loading: bool) -> None:
    command = [sys.executable, "-c", LOADS_TORCH.format(loading=loading)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.strip()) == (130, "interrupted")
