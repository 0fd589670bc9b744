"""The trainer's C++, and what can be called in it: attention, dropout, and a copy that transposes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from neural.cpp.building import Library, load, prepare
from neural.diagnostics.diagnostic import NeuralError


class Dropping(ctypes.Structure):
    """What is dropped: that of which 16 random bits, which follow from the seed, are below the threshold."""

    _fields_ = (("seed", ctypes.c_uint64), ("threshold", ctypes.c_int32))


P, N = ctypes.c_void_p, ctypes.c_int64
KERNELS = Library(
    name="kernels",
    what="the library of attention and dropout",
    folder=Path(__file__).parent / "source",
    instead="torch's, which are slower",
    flags=("-fopenmp",),  # whose threads are torch's
    functions={
        "attention_forward": (ctypes.c_bool, (P, ctypes.c_float, ctypes.POINTER(Dropping), P, P)),
        "attention_backward": (ctypes.c_bool, (P, ctypes.c_float, ctypes.POINTER(Dropping), P, P)),
        "dropout_float32": (None, (ctypes.POINTER(Dropping), P, P, N)),
        "dropout_bfloat16": (None, (ctypes.POINTER(Dropping), P, P, N)),
        "transposed": (None, (P, P, N, N, N)),
    },
)


@cache
def library() -> ctypes.CDLL | None:
    """The library, compiled if need be; None where it cannot be."""
    try:
        return load(KERNELS)
    except NeuralError:
        return None


def compile_kernels(say: Callable[[str], None]) -> None:
    """Have the library ready, and say what is to be known about that."""
    try:
        prepare(KERNELS, say)
    except NeuralError as error:
        say(f"note: {error.diagnostics[0].title}; torch's own are slower")


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, dropping: Dropping
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of float32 q (B, H, T, width), k and v (B, kv heads, T, width): what comes out, as q, and the
    logarithms of the sums of exp of the scores, (B, H, T).
    """
    out, logs = _heads_together(q), q.new_empty(q.shape[:3])
    _require(library().attention_forward(_sizes(q, k), scale, dropping, _views(q, k, v, out), logs.data_ptr()))
    return out, logs


def attend_backward(
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor,
    logs: torch.Tensor,
    slope: torch.Tensor,
    scale: float,
    dropping: Dropping,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The slopes by q, k and v, which were given, of what `attend` gave, whose slope is known. All float32."""
    slopes = tuple(_heads_together(x) for x in given)
    views = _views(*given, out, slope, *slopes)
    _require(library().attention_backward(_sizes(*given[:2]), scale, dropping, views, logs.data_ptr()))
    return slopes


def drop(x: torch.Tensor, dropping: Dropping) -> torch.Tensor:
    """x, float32 or bfloat16, with dropout: what stays is divided by the share that does."""
    x = x.contiguous()
    dropped = torch.empty_like(x)
    function = getattr(library(), f"dropout_{str(x.dtype).removeprefix('torch.')}")
    function(dropping, dropped.data_ptr(), x.data_ptr(), x.numel())
    return dropped


def transposed(matrix: torch.Tensor) -> torch.Tensor:
    """A copy of a float32 matrix (rows, columns) in the order of its columns: (columns, rows)."""
    if library() is None or matrix.stride(1) != 1:
        return matrix.t().contiguous()
    copy = matrix.new_empty(matrix.shape[::-1])
    library().transposed(copy.data_ptr(), matrix.data_ptr(), *matrix.shape, matrix.stride(0))
    return copy


def _require(done: bool) -> None:
    if not done:
        raise MemoryError("there was none for a head's keys and values")


def _heads_together(x: torch.Tensor) -> torch.Tensor:
    """Memory for (B, H, T, width) as products read it: the heads of a token side by side."""
    B, H, T, width = x.shape
    return x.new_empty(B, T, H, width).transpose(1, 2)


def _sizes(q: torch.Tensor, k: torch.Tensor) -> ctypes.Array[ctypes.c_int64]:
    B, H, T, width = q.shape
    return (N * 5)(B, H, k.size(1), T, width)


def _views(*tensors: torch.Tensor) -> ctypes.Array[ctypes.c_int64]:
    return (N * (4 * len(tensors)))(*(n for x in tensors for n in (x.data_ptr(), *x.stride()[:3])))
