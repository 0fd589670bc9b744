"""Products of matrices in float32 by oneDNN, where that is faster than the MKL which PyTorch takes for them.

MKL runs what it has for AVX2 on AMD's processors; oneDNN uses their AVX-512: in products of the size of GPT-2's a tenth
more operations a second where 512 bits take two turns of a unit of 256, and twice as many where they take one. Both are
IEEE float32 and differ by the order of their sums.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from neural.planning.memory import DEPTH
from neural.training.cpu_library import transposed

ZEN_5 = 26  # the family of AMD's processors from which on 512 bits take one turn
# What is smaller gains less than a call costs: multiplications from Zen 5 on, numbers of a weight before.
WORK, WEIGHTS = 2**22, 2**17
ROWS, INNER = 512, 1024  # of what is found and of what is summed, at most, in a product that is put elsewhere


@cache
def family() -> int:
    """Which of AMD's with AVX-512 this processor is; 0 for another one, or where torch has no oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return 0
    found = re.search(r"^cpu family\s*: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found and "AuthenticAMD" in text else 0


def takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN shall multiply matrices like these."""
    whole = type(x) is torch.Tensor and type(weight) in (torch.Tensor, nn.Parameter)  # and not parts, DTensors
    if not whole or x.device.type != "cpu" or not family():
        return False
    if family() >= ZEN_5:
        large = x.numel() * weight.size(0) >= WORK
    else:
        large = weight.numel() >= WEIGHTS and weight.size(-1) >= DEPTH
    return large and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, into: torch.Tensor | None = None
) -> torch.Tensor:
    """F.linear by whichever is faster, without a gradient: x (…, D) · weight (V, D)ᵀ + bias (V,).

    into: float32 memory that x (N, D) is multiplied into, where that can be said: oneDNN takes its own.
    """
    if into is None and takes(x, weight):
        return _product(x, weight, bias)
    if into is None or not x.dtype == weight.dtype == into.dtype or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    place = into[: len(x) * len(weight)].view(len(x), len(weight))
    return torch.mm(x, weight.t(), out=place) if bias is None else torch.addmm(bias, x, weight.t(), out=place)


class Linear(torch.autograd.Function):
    """`linear` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = slope.flatten(0, -2)
        for_x = _product(slope, weight.t(), None) if ctx.needs_input_grad[0] else None
        for_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        if for_weight is not None:
            add_product(for_weight, rows.t(), x.flatten(0, -2), 1.0, first=True)
        for_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_weight, for_bias


def add_product(into: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: float, *, first: bool) -> None:
    """into (N, M), float32, += factor · (a (N, D) @ b (D, M)), piece by piece in the cache; `first` forgets what was.

    In half precision it is torch's, and of all D at once: sums of less would be rounded, each of them.
    """
    precise = a.dtype == into.dtype
    depth = INNER if precise else len(b)
    for columns, some in zip(a.split(depth, dim=1), b.split(depth), strict=True):
        for part, x in zip(into.split(ROWS), columns.split(ROWS), strict=True):
            found = _product(x if x.stride(1) == 1 else transposed(x.t()), some.t(), None) if precise else x @ some
            if first:
                part.copy_(found)
                if factor != 1:
                    part.mul_(factor)
            else:
                part.add_(found, alpha=factor)
        first = False


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
