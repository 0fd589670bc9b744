"""Gradients are exchanged once a step, however many batches it accumulates, and what exchanges them ends."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from neural.training.distributed.strategy import Layout, Strategy
from neural.training.distributed.world import joined
from neural.training.run import Run
from neural.training.session import start
from tests.training.distributed.workers import enter, together

HERE = Path(__file__).parent


class Counting(TorchDispatchMode):
    """Of reduce-scatters."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "reduce_scatter" in str(function)
        return function(*args, **(kwargs or {}))


def exchanges(rank: int, size: int, port: int, run: Path, strategy: str) -> None:
    """Write how many gradients are exchanged in a step: buckets of DDP, reduce-scatters of FSDP."""
    enter(rank, size, port)
    with joined(torch.device("cpu")) as world:
        session = start(Run.open(run), torch.device("cpu"), world, Layout(Strategy(strategy)))
        count = 0
        if strategy == "ddp":

            def hook(_state, bucket):  # torch refuses annotations that are strings
                nonlocal count
                count += 1
                reduced = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
                return reduced.then(lambda done: done.value()[0])

            session.parallel.forward.register_comm_hook(None, hook)
            session.advance()
        else:
            with Counting() as counted:
                session.advance()
            count = counted.count
        if rank == 0:
            run.with_name(f"{run.name}.count.json").write_text(json.dumps(count))


@pytest.mark.parametrize(("strategy", "groups"), [("ddp", 1), ("fsdp", 3)])  # two blocks and the rest
@pytest.mark.parametrize("accumulation", [1, 4])
def test_accumulation_exchanges_no_more(make_run, strategy: str, groups: int, accumulation: int) -> None:
    run = make_run(file=HERE / "gpt.neural", batch_size=2, accumulation=accumulation)
    together(exchanges, 2, run.path, strategy)
    assert json.loads(run.path.with_name(f"{run.path.name}.count.json").read_text()) == groups


def outlive(rank: int, size: int, port: int) -> None:
    """Drop a model that outlives its group just when gloo's thread waits to free a tensor of ours."""
    enter(rank, size, port)
    with joined(torch.device("cpu")):
        model = DistributedDataParallel(nn.Linear(2, 2))
        tensor = torch.zeros(2**20)
        sys.setswitchinterval(1000)
        time.sleep(0.3 * rank)  # so that the exchange ends after the group
        torch.distributed.all_reduce(tensor, async_op=True)
    end = time.perf_counter() + 0.6
    while time.perf_counter() < end:  # with the interpreter's lock held
        pass
    del model


def test_a_model_that_outlives_its_group_is_freed() -> None:
    together(outlive, 2)
