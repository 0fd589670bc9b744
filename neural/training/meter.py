"""What the machine gives a training: memory that it holds, and the operations a second that it could do at most."""

from __future__ import annotations

import os
import resource
import sys
import time
from functools import cache
from pathlib import Path

import torch

from neural.training.cpu_products import linear

SIDE = {"cpu": 768, "cuda": 8192}  # of the square matrices that are multiplied
TRIES = 20


def memory_now(device: torch.device) -> int:
    """Bytes: what torch holds of a GPU, or what this process holds of the machine."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return memory_peak(device)  # a system without /proc


def memory_peak(device: torch.device) -> int:
    """Bytes that were held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache
def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """`fastest_product` of matrices so small that it takes about a tenth of a second; measured once."""
    return fastest_product(device, dtype, SIDE[device.type])


def fastest_product(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second in the fastest of some products of square matrices, as a training here does them.

    A multiplication and an addition are two operations. Of random numbers, since a GPU is quicker with ones; they are
    no numbers of torch's own generators.
    """
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(side, side, device=device, generator=generator).to(dtype)
    fastest = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        linear(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * side**3 / fastest
