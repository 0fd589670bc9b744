"""Which way of training with several processes, and whether a program can be trained in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from neural.compiler import Program
from neural.data.loader import require_equal_shares
from neural.diagnostics.diagnostic import fail
from neural.training.distributed.parallel import Parallel, Replicated
from neural.training.distributed.placed import DATA, SHARD, TENSOR, Placed, shard
from neural.training.distributed.world import World
from neural.training.shares import alone

BYTES_PER_PARAMETER = 16  # float32: weight, gradient, and Adam's two moments
ROOM = 0.6  # the share of a GPU's memory that these may take; the rest is for activations


class Strategy(StrEnum):
    DDP = "ddp"  # the model everywhere, the data in shares
    FSDP = "fsdp"  # weights, gradients and moments in slices, too
    TP = "tp"  # products split by column and by row, the data everywhere


@dataclass(frozen=True, slots=True)
class Layout:
    """`tensor` processes side by side split the products; groups of them share the data by `strategy`."""

    strategy: Strategy
    tensor: int = 1

    @classmethod
    def chosen(
        cls, program: Program, device: torch.device, size: int, strategy: str | None = None, tensor: int | None = None
    ) -> Layout:
        """Of `size` processes, as asked for.

        Without a strategy: DDP where weights, gradients and moments leave a GPU room for the rest, else FSDP.
        NeuralError N844 where the processes do not divide so.
        """
        if strategy == Strategy.TP:
            if tensor not in (None, size):
                fail(
                    "N844",
                    f"--parallel tp splits the products among all processes, which are {size}, not {tensor}",
                    hint="for both, data in shares and products split: --parallel ddp or fsdp",
                )
            return cls(Strategy.TP, size)
        tensor = 1 if tensor is None else tensor
        if tensor < 1 or size % tensor:
            fail(
                "N844",
                f"{size} process{'es' * (size != 1)} cannot be divided into groups of {tensor}",
                notes=("--tensor-parallel says how many split each product; the groups share the data",),
                hint="give a number that divides --devices",
            )
        chosen = Strategy(strategy) if strategy else _by_memory(program, device, tensor)
        return cls(Strategy.TP if tensor == size > 1 else chosen, tensor)

    def __str__(self) -> str:
        return str(self.strategy) if self.strategy is Strategy.TP or self.tensor == 1 else f"{self.strategy} × tp"

    def options(self, size: int) -> list[str]:
        """What is typed for it, of `size` processes."""
        words = ["--parallel", str(self.strategy)]
        return words + (["--tensor-parallel", str(self.tensor)] if 1 < self.tensor < size else [])

    def axes(self, size: int) -> dict[str, int]:
        """The mesh of `size` processes: how many along each axis."""
        groups = {
            Strategy.DDP: {DATA: size // self.tensor, SHARD: 1},  # `fully_shard` without slices: copies
            Strategy.FSDP: {SHARD: size // self.tensor},
            Strategy.TP: {},
        }[self.strategy]
        return groups | ({TENSOR: self.tensor} if self.tensor > 1 else {})


def _by_memory(program: Program, device: torch.device, tensor: int) -> Strategy:
    if device.type != "cuda":
        return Strategy.DDP
    memory = torch.cuda.get_device_properties(device).total_memory
    return Strategy.DDP if BYTES_PER_PARAMETER * program.parameter_count / tensor < ROOM * memory else Strategy.FSDP


def require_division(program: Program, layout: Layout, size: int) -> None:
    """Before anything is made: NeuralError N836 and N839 unless the program's work divides among `size` processes."""
    sequences = program.settings.train
    require_equal_shares(sequences.batch_size, sequences.gradient_accumulation, size // layout.tensor)
    if layout.tensor > 1:
        from neural.training.distributed.tensor_parallel import divided

        divided(program, layout.tensor)


def distribute(program: Program, model: nn.Module, world: World, layout: Layout) -> Parallel:
    """The model, whole and the same in every process, as each of them trains it. NeuralError N839 (TP)."""
    if world.size == 1:
        return alone(model, program.settings.train.batch_size)
    if layout == Layout(Strategy.DDP):
        return Replicated(model, world)
    axes = layout.axes(world.size)
    mesh = init_device_mesh(next(model.parameters()).device.type, tuple(axes.values()), mesh_dim_names=tuple(axes))
    orders, own_dice = {}, False
    if TENSOR in axes:
        from neural.training.distributed.tensor_parallel import split

        model, orders, own_dice = split(program, model, mesh[TENSOR])
    if data := tuple(axis for axis in axes if axis != TENSOR):
        shard(model, mesh[data])
    return Placed(model, world, mesh, orders, own_dice=own_dice)
