"""What becomes of memory that a training frees."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neural.training.allocation import memory_for
from neural.training.cpu_kernels import CpuKernels, checkpoint_by_kernels
from neural.training.meter import memory_now

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_freed_memory_is_held_but_where_less_is_what_was_asked_for(checkpointing: bool) -> None:
    cpu = torch.device("cpu")
    with memory_for("cpu", checkpointing=checkpointing):
        array = torch.ones(64 * MIB // 4)
        there = memory_now(cpu)
        del array
        given_back = there - memory_now(cpu)
    assert given_back > 60 * MIB if checkpointing else given_back < 4 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_what_lies_free_goes_back_before_a_block_is_computed_again() -> None:
    cpu = torch.device("cpu")
    with memory_for("cpu", checkpointing=True):
        with CpuKernels(0):
            x = torch.ones(4, 4, requires_grad=True)
            out = checkpoint_by_kernels(torch.nn.Linear(4, 4), x, use_reentrant=False)
        arrays = [torch.ones(16 * MIB // 4) for _ in range(8)]
        there = memory_now(cpu)
        del arrays[::2]
        held = memory_now(cpu)
        out.sum().backward()
        assert there - held < 4 * MIB < 40 * MIB < held - memory_now(cpu)


HEAPS = """
import ctypes, sys, threading, torch
from neural.training.allocation import memory_for

library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p

def heaps(name):
    file = ctypes.c_void_p(library.fopen(name.encode(), b"w"))
    library.malloc_info(0, file)
    library.fclose(file)
    with open(name) as written:
        return written.read().count("<heap nr")

before = heaps(sys.argv[1])
with memory_for("cpu", checkpointing=len(sys.argv) > 2):
    threads = [threading.Thread(target=lambda: torch.ones(2**20)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(heaps(sys.argv[1]) - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
@pytest.mark.parametrize("options", [[], ["checkpointing"]])
def test_threads_share_heaps_where_memory_is_held(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", HEAPS, str(tmp_path / "heaps.xml"), *options]
    made = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert made > 0 if options else made == 0
