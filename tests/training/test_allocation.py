"""What becomes of memory that a training frees."""

from __future__ import annotations

import platform

import pytest
import torch

from neural.training.allocation import memory_for
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
