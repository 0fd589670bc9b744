"""Start the processes of one training on this machine, and end all when one fails."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import torch
from torch.distributed import TCPStore

from neural.diagnostics.diagnostic import fail
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import launched
from neural.training.run import Run

LOST = 75  # the exit code of a worker that only says that another one is gone (EX_TEMPFAIL)
PEERS = 3.0  # seconds in which the others may end by themselves after one has failed
POLL = 0.05
SHOWN_LINES = 12
LAUNCHED = "NEURAL_WORKER"  # in the environment of a worker that `launch` started


def require_devices(count: int | None, device: torch.device, say: Callable[[str], None]) -> None:
    """NeuralError N837 unless `count` processes can each have a device. More than a CPU has cores are only told."""
    if count is None:
        return
    if launched():
        title = "--devices starts the processes itself, and another launcher has started this one already"
        fail("N837", title, hint="leave --devices out: torchrun's --nproc-per-node or srun's --ntasks says how many")
    if count < 1:
        fail("N837", f"--devices {count} is not a number of devices", hint="give 1 or more")
    if device.type != "cuda":
        if count > (cores := os.cpu_count() or 1):
            each = f"{cores} core{'s' * (cores != 1)}"
            say(f"note: {count} processes share {each}, which is slower than --devices {cores}")
        return
    there = torch.cuda.device_count()
    if count > there:
        fail(
            "N837",
            f"--devices {count} asks for more than the {there} GPU{'s' * (there != 1)} that torch can use here",
            hint=f"use --devices {there}, or more machines under torchrun or srun",
        )


def resume_command(run: Run, device: torch.device, count: int, layout: Layout) -> str:
    """What is typed for `count` processes, started as this one was, to go on (behind torchrun or srun, if by those)."""
    words = ["neural", "train", "--resume", str(run.path)]
    if LAUNCHED in os.environ:
        words += ["--devices", str(count)]
        if layout != Layout.chosen(run.program, device, count):
            words += layout.options(count)
    return shlex.join(words)


def launch(run: Path, options: Sequence[str], count: int) -> int:
    """Run `neural train --resume RUN OPTIONS` in `count` processes; the exit code, 0 if all ended well.

    The leader's output goes where ours goes. Ctrl-C and SIGTERM are passed on, and the workers end if we do.
    NeuralError N841 if a worker dies.
    """
    arguments = ["train", "--resume", str(run), *options]
    again = shlex.join(["neural", *arguments, "--devices", str(count)])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # holds the port, so nobody else takes it
    environment = {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # no worker opens the port again
        "WORLD_SIZE": str(count),
        LAUNCHED: "1",
    }
    command = [sys.executable, "-m", "neural", *arguments]
    with tempfile.TemporaryFile() as quiet:
        workers = [_start(command, environment, rank, quiet) for rank in range(count)]
        asked: list[int] = []
        passed_on = _pass_on(workers, asked)
        handlers = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            failed = _wait(workers)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for worker in workers:
                worker.kill()
                worker.wait()
        if failed and asked and _only_stopped(workers):
            print(f"interrupted; go on with:\n  {again}", file=sys.stderr)
            return 128 + asked[0]
        return _outcome(workers, quiet, again) if failed else 0


def _start(command: list[str], environment: dict[str, str], rank: int, quiet: IO[bytes]) -> subprocess.Popen:
    """Its standard input is a pipe that closes when we die. What followers say is kept for the one that fails."""
    out = None if rank == 0 else quiet
    environment = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
    )


def _pass_on(workers: list[subprocess.Popen], asked: list[int]):
    def handler(number: int, _frame: object) -> None:
        asked.append(number)
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    return handler


def _wait(workers: list[subprocess.Popen]) -> bool:
    """Whether one failed. The others have a moment then to say what they have to."""
    while True:
        codes = [worker.poll() for worker in workers]
        if any(codes):
            break
        if None not in codes:
            return False
        time.sleep(POLL)
    end = time.monotonic() + PEERS
    while time.monotonic() < end and None in [worker.poll() for worker in workers]:
        time.sleep(POLL)
    for worker in workers:  # before they are ended by us: which ended by themselves
        worker.ended_by_itself = worker.poll() is not None
    return True


def _only_stopped(workers: list[subprocess.Popen]) -> bool:
    """Whether each ended as one does that is stopped while it starts, or at once by a second Ctrl-C, or after such."""
    stopped = {0, LOST, 128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM}
    return all(worker.returncode in stopped for worker in workers if worker.ended_by_itself)


def _outcome(workers: list[subprocess.Popen], quiet: IO[bytes], again: str) -> int:
    """The code of a mistake that the leader has told, else N841 about the worker that failed first."""
    if not (workers[0].ended_by_itself and workers[0].returncode == 2):
        own = [(rank, worker.returncode) for rank, worker in enumerate(workers) if worker.ended_by_itself]
        causes = [(rank, code) for rank, code in own if code not in (0, LOST)]
        rank, code = (causes or own)[0]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        quiet.seek(0)
        said = quiet.read().decode(errors="replace").splitlines()[-SHOWN_LINES:] if rank else []
        fail(
            "N841",
            f"worker {rank} of {len(workers)} {how}; the others were ended too",
            notes=tuple(line for line in said if line.strip()),
            hint=f"go on from the newest whole checkpoint: {again}",
        )
    return 2
