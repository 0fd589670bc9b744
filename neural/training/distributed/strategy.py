"""Which way of training with several processes, and whether a program can be trained in it."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import nn

from neural.compiler import Program
from neural.training.distributed.parallel import Parallel, Replicated, Sharded
from neural.training.distributed.world import World

BYTES_PER_PARAMETER = 16  # float32: weight, gradient, and Adam's two moments
ROOM = 0.6  # the share of a GPU's memory that these may take; the rest is for activations


class Strategy(StrEnum):
    DDP = "ddp"  # the model everywhere, the data in shares
    FSDP = "fsdp"  # weights, gradients and moments in slices, too
    TP = "tp"  # products split by column and by row, the data everywhere


def chosen_strategy(program: Program, device: torch.device) -> Strategy:
    """DDP where weights, gradients and moments leave a GPU room for the rest, else FSDP."""
    if device.type != "cuda":
        return Strategy.DDP
    memory = torch.cuda.get_device_properties(device).total_memory
    return Strategy.DDP if BYTES_PER_PARAMETER * program.parameter_count < ROOM * memory else Strategy.FSDP


def distribute(program: Program, model: nn.Module, world: World, strategy: Strategy) -> Parallel:
    """The model, whole and the same in every process, as each of them trains it. NeuralError N839 (TP)."""
    if world.size == 1:
        return Parallel(model)
    if strategy is Strategy.TP:
        from neural.training.distributed.tensor_parallel import Split

        return Split(program, model, world)
    return Replicated(model, world) if strategy is Strategy.DDP else Sharded(model, world)
