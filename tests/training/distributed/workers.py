"""Several processes that train one run together: quick to start, where the command line takes seconds."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed import TCPStore

from neural.diagnostics.diagnostic import NeuralError
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import joined
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.run import Run
from tests.forked.context import CONTEXT

LONGEST = 120.0  # seconds that processes may take


def together(work: Callable[..., None], size: int, *arguments: object) -> None:
    """`work(rank, size, port, *arguments)` in processes, each of which must end well."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # holds the port, so nobody else takes it
    with tempfile.TemporaryDirectory() as name:
        said = [Path(name) / str(rank) for rank in range(size)]
        calls = [(work, said[rank], rank, size, store.port, *arguments) for rank in range(size)]
        workers = [CONTEXT.Process(target=_told, args=call, daemon=True) for call in calls]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        codes = [worker.exitcode for worker in workers]
        assert codes == [0] * size, "\n".join([f"they ended with {codes}", *(path.read_text() for path in said)])


def _told(work: Callable[..., None], said: Path, *arguments: object) -> None:
    """What it says is kept for who asks why it failed, and where it stands when it takes too long."""
    with said.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    work(*arguments)


def train_together(
    run: Path, size: int, strategy: str, *, tensor: int | None = None, stop_at: int | None = None
) -> dict:
    """How it ended, by the leader's account."""
    together(_work, size, run, strategy, tensor, stop_at)
    return json.loads(_said(run).read_text())


def losses(run: Path, kind: str = "train") -> dict[int, float]:
    return {r["step"]: r["loss"] for r in read_metrics(run / "metrics.jsonl") if r["kind"] == kind}


def enter(rank: int, size: int, port: int) -> None:
    """Make this process one of several, as a launcher would."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        TORCHELASTIC_USE_AGENT_STORE="True",  # the one that holds the port
    )


def _said(run: Path) -> Path:
    return run.with_name(f"{run.name}.together.json")


def _work(rank: int, size: int, port: int, run: Path, strategy: str, tensor: int | None, stop_at: int | None) -> None:
    enter(rank, size, port)
    cpu = torch.device("cpu")
    with joined(cpu) as world:
        try:
            opened = Run.open(run)
            layout = Layout.chosen(opened.program, cpu, size, strategy, tensor)
            outcome = train(opened, stop_at=stop_at, device="cpu", world=world, layout=layout, sample=_sample)
            said = {"state": outcome.state, "step": outcome.step}
        except NeuralError as error:
            said = {"code": error.diagnostics[0].code, "title": error.diagnostics[0].title}
        if rank == 0:
            _said(run).write_text(json.dumps(said))


def _sample(model, _tokenizer) -> str:
    """By the weights, whole: the same however they were held."""
    return f"{sum(p.double().abs().sum().item() for p in model.parameters()):.4f}"
