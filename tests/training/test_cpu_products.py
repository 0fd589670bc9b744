"""oneDNN's products are torch's own, with their gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from neural.training import cpu_products
from neural.training.cpu_kernels import CpuKernels, cpu_kernels


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor is: oneDNN is there on all of them."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(cpu_products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(cpu_products, "WEIGHTS", 1)
    monkeypatch.setattr(cpu_products, "DEPTH", 1)


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


def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.ones(2, 4), torch.ones(3, 4)
    assert cpu_products.takes(x, weight)
    assert not cpu_products.takes(x.double(), weight.double())
    assert not cpu_products.takes(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not cpu_products.takes(x, weight)
    monkeypatch.setattr(cpu_products, "WEIGHTS", 13)
    assert not cpu_products.takes(x, weight)
    monkeypatch.setattr(cpu_products, "WEIGHTS", 12)
    monkeypatch.setattr(cpu_products, "DEPTH", 5)
    assert not cpu_products.takes(x, weight)


def test_a_model_without_dropout_has_them(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_run(dropout=0.0).new_model()
    batch = (torch.zeros(2, 3, dtype=torch.int64),) * 2
    assert isinstance(cpu_kernels(model, batch)[0], CpuKernels)
    monkeypatch.setattr(cpu_products, "WEIGHTS", 2**30)
    assert cpu_kernels(model, batch) == [None]
