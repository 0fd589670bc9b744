"""The processes of one training: which of them this is, and what they tell each other, by torch.distributed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
import torch.distributed as dist

from neural.diagnostics.diagnostic import fail

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
JOINED: list[dist.ProcessGroup | None] = []
"""Kept for the life of the process. DDP may outlive `joined`: were it the last to hold the group, it would free it with
the interpreter's lock held, and wait for ever where gloo's thread, about to free a tensor, waits for that lock
(https://github.com/pytorch/pytorch/issues/56297)."""


@dataclass(frozen=True, slots=True)
class World:
    """`size` processes, of which this is number `rank`. Number 0 leads: it alone writes files and speaks."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None  # of torch; None is all processes that were started

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX, self.group)
        return int(found)

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Everybody's tensor, on the CPU and of one shape and dtype everywhere, in the order of ranks."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor, self.group)
        return found

    def texts(self, text: str) -> list[str]:
        """Everybody's text, in the order of ranks."""
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte()
        lengths = [int(length) for length in self.gather(torch.tensor(data.numel()))]
        padded = torch.cat([data, torch.zeros(max(lengths) - data.numel(), dtype=torch.uint8)])
        found = self.gather(padded) if max(lengths) else [padded] * self.size
        return [f[:n].numpy().tobytes().decode() for f, n in zip(found, lengths, strict=True)]

    def leaders(self, text: str) -> str:
        """What the leader gives, everywhere."""
        return self.texts(text if self.leads else "")[0]

    def apart(self) -> World:
        """The same processes with a channel of their own, for a thread beside the training. All of them call it."""
        return replace(self, group=dist.new_group(backend="gloo")) if self.size > 1 else self


ALONE = World()


def launched() -> bool:
    """Whether a launcher (ours, torchrun, srun) started this process as one of several."""
    return processes() > 1


def processes() -> int:
    """How many a launcher has started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that the environment names (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), else this process alone.

    With CUDA each process takes the GPU of its LOCAL_RANK. NeuralError N838 for processes of different versions.
    """
    if not launched():
        yield ALONE
        return
    if device.type == "cuda":
        own = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(own % torch.cuda.device_count())  # srun may show each task no more than its own
    dist.init_process_group(BACKENDS[device.type])
    JOINED.append(dist.group.WORLD)
    try:
        world = World(dist.get_rank(), dist.get_world_size())
        _require_same_versions(world)
        yield world
    finally:
        dist.destroy_process_group()


def _require_same_versions(world: World) -> None:
    own = f"neural {version('neural-dsl')}, torch {torch.__version__}"
    digest = torch.frombuffer(bytearray(hashlib.sha256(own.encode()).digest()[:8]), dtype=torch.int64)
    others = [rank for rank, found in enumerate(world.gather(digest)) if not torch.equal(found, digest)]
    if others:
        fail(
            "N838",
            f"the workers are of different versions: number {world.rank} has {own}, and number {others[0]} has another",
            hint="install one version of neural-dsl and of torch on all machines",
        )
