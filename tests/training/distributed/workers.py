"""Several processes that train one run together: quick to start, where the command line takes seconds."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from neural.diagnostics.diagnostic import NeuralError
from neural.training.distributed.strategy import Layout
from neural.training.distributed.world import joined
from neural.training.loop import train
from neural.training.metrics import read_metrics
from neural.training.run import Run
from tests.forked.context import CONTEXT


def together(work: Callable[..., None], size: int, *arguments: object) -> None:
    """`work(rank, size, port, *arguments)` in processes, each of which must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [CONTEXT.Process(target=work, args=(rank, size, port, *arguments), daemon=True) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * size


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
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo"
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
