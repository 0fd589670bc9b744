"""A batch among threads has the gradient of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neural.training import cpu_library
from neural.training.cpu_kernels import CpuKernels
from neural.training.distributed.parallel import Parallel
from neural.training.shares import Shares, alone
from neural.training.step import accumulate_gradients

GPT = Path(__file__).parent / "distributed" / "gpt.neural"


@pytest.fixture
def model(make_run) -> nn.Module:
    torch.manual_seed(1)
    return make_run(dropout=0.0).new_model()


def batches(size: int, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(size)
    ids = [torch.randint(20, (size, 9), generator=draw) for _ in range(count)]
    return [(x[:, :-1], x[:, 1:]) for x in ids]


def gradients(parallel: Parallel, given: list) -> tuple[torch.Tensor, list[torch.Tensor]]:
    parallel.model.zero_grad(set_to_none=True)
    losses = accumulate_gradients(parallel, given)
    return losses, [p.grad.clone() for p in parallel.model.parameters()]


@pytest.mark.parametrize(("size", "threads"), [(4, 2), (5, 2), (3, 3), (7, 4)])
def test_the_gradient_is_that_of_one_thread(model: nn.Module, size: int, threads: int) -> None:
    expected, found = (gradients(p, batches(size)) for p in (Parallel(model), Shares(model, threads)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("whose", ["own", "torch's"])
def test_the_bits_are_the_same_every_time(make_run, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if whose == "torch's":
        monkeypatch.setattr(cpu_library, "library", lambda: None)
    model = make_run(dropout=0.3).new_model().train()
    found = []
    for _ in range(5):
        torch.manual_seed(4)
        found.append(gradients(Shares(model, 3), batches(6)))
    for losses, grads in found[1:]:
        assert torch.equal(losses, found[0][0])
        assert all(torch.equal(one, other) for one, other in zip(grads, found[0][1], strict=True))


def test_the_cores_are_given_back(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    shares = Shares(model, 2)
    gradients(shares, batches(4))
    assert torch.get_num_threads() == before
    with shares.stepping():
        assert torch.get_num_threads() == 1  # a small model's update
        gradients(shares, batches(4))
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    shares.forward = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        gradients(shares, batches(4))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("parameters", "cores"), [(2**22, 1), (2**22 + 1, 8)])
def test_a_large_model_is_updated_by_all_cores(parameters: int, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert Shares(nn.Linear(parameters, 1, bias=False, device="meta"), 2).updating == cores


def test_who_takes_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert alone(nn.Linear(4, 4), 12).count == 4
    assert alone(nn.Linear(4, 4), 3).count == 3
    for model, batch in ((nn.Linear(4, 4), 1), (nn.Linear(2**13, 2**13, device="meta"), 12), (nn.BatchNorm1d(4), 12)):
        assert type(alone(model, batch)) is Parallel


@pytest.mark.parametrize("whose", ["own", "torch's"])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_that_are_computed_again_give_the_same_bits(
    make_run, monkeypatch: pytest.MonkeyPatch, threads: int, whose: str
) -> None:
    """What was dropped is dropped again, by the kernels of the thread that dropped it."""
    if whose == "torch's":
        monkeypatch.setattr(cpu_library, "library", lambda: None)
    calls: list[Any] = []
    kernels = CpuKernels.__torch_function__
    monkeypatch.setattr(CpuKernels, "__torch_function__", lambda *given: calls.append(given[1]) or kernels(*given))
    found, attended = [], []
    for again in (False, True):
        execution = {"activation_checkpointing": again}
        torch.manual_seed(1)
        model = make_run(f"{again}", file=GPT, dropout=0.3, execution=execution).new_model().train()
        torch.manual_seed(4)
        calls.clear()
        found.append(gradients(Shares(model, threads) if threads > 1 else Parallel(model), batches(6)))
        attended.append(calls.count(F.scaled_dot_product_attention))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))
    assert attended[1] == 2 * attended[0] > 0
