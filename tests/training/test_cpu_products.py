"""oneDNN's products are torch's own, with their gradients."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from neural.training import cpu_products, loss
from neural.training.cpu_kernels import CpuKernels
from neural.training.logits_memory import LogitsMemory


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor is: oneDNN is there on all of them."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(cpu_products, "family", lambda: cpu_products.ZEN_5)
    monkeypatch.setattr(cpu_products, "WORK", 1)


@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (2, 3, 5, 24), (1, 24)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_the_product_and_its_gradients(shape: tuple[int, ...], biased: bool, transposed: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=draw)
    x = x.transpose(0, -2).requires_grad_() if transposed else x.requires_grad_()
    weight = torch.randn(9, 24, generator=draw, requires_grad=True)
    bias = torch.randn(9, generator=draw, requires_grad=True) if biased else None
    slope = torch.randn(*x.shape[:-1], 9, generator=draw)
    given = [t for t in (x, weight, bias) if t is not None]
    expected = F.linear(x, weight, bias)
    with CpuKernels(0):
        found = F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__ == "LinearBackward"
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(y, given, slope) for y in (found, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize(("rows", "inner"), [(1, 1), (5, 100), (13, 10), (100, 24), (6, 12)])
@pytest.mark.parametrize("first", [True, False])
def test_a_product_is_added_in_pieces(rows: int, inner: int, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "ROWS", rows)
    monkeypatch.setattr(cpu_products, "INNER", inner)
    draw = torch.Generator().manual_seed(3)
    a, b, into = (torch.randn(shape, generator=draw) for shape in ((24, 13), (24, 7), (13, 7)))
    expected = 0.5 * (a.T @ b) + (0 if first else into)
    cpu_products.add_product(into.fill_(torch.nan) if first else into, a.T, b, 0.5, first=first)
    torch.testing.assert_close(into, expected)


def test_in_half_precision_it_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "INNER", 4)
    a, b = (torch.randn(24, n, generator=torch.Generator().manual_seed(n)).bfloat16() for n in (13, 7))
    into = torch.zeros(13, 7)
    cpu_products.add_product(into, a.T, b, 0.5, first=True)
    assert torch.equal(into, 0.5 * (a.T @ b).float())


def test_what_is_added_takes_few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "ROWS", 400)
    monkeypatch.setattr(cpu_products, "INNER", 60)
    a, b, into = torch.randn(100, 4000), torch.randn(100, 40), torch.zeros(4000, 40)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        cpu_products.add_product(into, a.T, b, 1.0, first=False)
    held = accumulate(e.nbytes() for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]")
    assert 4 * 400 * 60 < max(held) <= 1.05 * 4 * 400 * (60 + 2 * 40)


@pytest.mark.parametrize("inner", [20, 1024])
def test_the_head_has_them(inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "INNER", inner)
    monkeypatch.setitem(loss.LOGITS, "cpu", 1000)
    draw = torch.Generator().manual_seed(3)
    given = [torch.randn(shape, generator=draw, requires_grad=True) for shape in ((40, 12), (65, 12), (65,))]
    targets = torch.randint(65, (40,), generator=draw)
    expected = F.cross_entropy(F.linear(*given), targets) / 4
    found = loss.HeadLoss.apply(*given, None, targets, 0.25, None, LogitsMemory())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, given), torch.autograd.grad(expected, given))


def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.ones(2, 4), torch.ones(3, 4)
    assert cpu_products.takes(x, weight)
    assert not cpu_products.takes(x.double(), weight.double())
    assert not cpu_products.takes(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not cpu_products.takes(x, weight)
    for family, names, taken in (
        (cpu_products.ZEN_5, {"WORK": 24}, True),
        (cpu_products.ZEN_5, {"WORK": 25}, False),
        (cpu_products.ZEN_5 - 1, {"WEIGHTS": 12, "DEPTH": 4}, True),
        (cpu_products.ZEN_5 - 1, {"WEIGHTS": 13, "DEPTH": 4}, False),
        (cpu_products.ZEN_5 - 1, {"WEIGHTS": 12, "DEPTH": 5}, False),
        (0, {"WORK": 1, "WEIGHTS": 1, "DEPTH": 1}, False),
    ):
        monkeypatch.setattr(cpu_products, "family", lambda family=family: family)
        for name, value in names.items():
            monkeypatch.setattr(cpu_products, name, value)
        assert cpu_products.takes(x, weight) == taken
