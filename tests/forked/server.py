"""Runs `neural` for each client in a fork of this process: its arguments, folder, environment, and open files."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress


def serve(listening: socket.socket) -> None:
    """Until we are killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks of this loop
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _attend(client)
        client.close()


def _attend(client: socket.socket) -> None:
    """Answer the exit code of a fork that runs the command. What comes from the client is signals to pass on."""
    request, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        client.close()
        _become(streams, **json.loads(request))
        _run()
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    while ended not in (ready := select.select([client, ended], [], [])[0]):
        if client in ready:
            os.kill(child, int.from_bytes(client.recv(1)) or signal.SIGKILL)  # no byte: it was killed
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):  # the client was killed
        client.send(str(code).encode())
    os._exit(0)


def _become(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """What a shell makes of a process."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["neural", *arguments]
    multiprocessing.current_process()._config.clear()  # in which we are a daemon, and may start no process


def _run() -> None:
    """`neural`, and what Python does before it ends."""
    from neural.cli import main

    try:
        main()
    except SystemExit as ended:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(ended.code)
