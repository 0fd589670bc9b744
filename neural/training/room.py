"""Whether a training fits into the memory that is there: said before it begins, not by the system after an hour.

Where it fits only if blocks are computed again in the backward pass, they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import torch

from neural.compiler import Program
from neural.diagnostics.amounts import size
from neural.diagnostics.diagnostic import NeuralError, fail
from neural.planning.fit import CHECKPOINTING, Way, ways_to_fit
from neural.planning.hardware import USABLE, available_memory
from neural.planning.layout import Layout as PlannedLayout
from neural.planning.plan import Plan, plan
from neural.training.distributed.launch import LAUNCHED
from neural.training.distributed.strategy import Layout, Strategy
from neural.training.precision import chosen_precision


def made_to_fit(
    program: Program,
    device: torch.device,
    devices: int,
    strategy: str | None = None,
    tensor: int | None = None,
    *,
    fixed: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Program:
    """The program, with activation checkpointing where only that makes the plan for so many devices fit, which is said.

    fixed: it cannot be changed any more. On a CPU all processes share what the system has available. What cannot be
    planned, or divided, others tell. NeuralError N733 if it needs more than is free, with what to change.
    """
    if LAUNCHED in os.environ:  # by a process that has looked already, before the others took their part
        return program
    free = _free_memory(device)
    try:
        layout = _planned(Layout.chosen(program, device, devices, strategy, tensor), devices)
        precision, _ = chosen_precision(program, device)
        make = partial(plan, program, device=device.type, layout=layout, precision=precision)
        made = make()
    except NeuralError:
        return program
    sharing = devices if device.type == "cpu" else 1
    if free is None or sharing * made.training.total <= USABLE[device.type] * free:
        return program
    usable = int(USABLE[device.type] * free / sharing)
    changes = ways_to_fit(made, usable, lambda **changes: make(**({"layout": layout} | changes)))
    again = next((way.plan.training.total for way in changes if way.change == CHECKPOINTING), None)
    if again is None or fixed:
        _refuse(made, sharing, free, changes)
    needs = f"{size(made.training.total)} of memory, and {size(free)} are free"
    say(f"note: activations are not kept, which needs {size(again)}: keeping them needs {needs}")
    return program.executed(activation_checkpointing=True)


def _refuse(made: Plan, sharing: int, free: int, changes: Sequence[Way]) -> NoReturn:
    """Raise N733. changes: with which it fits."""
    ways = [f"with {way.change} it needs {size(way.plan.training.total)}" for way in changes]
    each = f"{sharing} × " if sharing > 1 else ""
    fail(
        "N733",
        f"training {made.network} needs {each}{size(made.training.total)} of memory, and {size(free)} are free",
        notes=(_parts(made), *ways),
        hint="change one of these" if ways else "take a smaller model, or a device with more memory; --force tries it",
    )


def _planned(layout: Layout, devices: int) -> PlannedLayout:
    return PlannedLayout.of(devices, str(layout.strategy), layout.tensor if layout.strategy != Strategy.TP else None)


def _free_memory(device: torch.device) -> int | None:
    """Bytes."""
    if device.type != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return free


def _parts(made: Plan) -> str:
    """What needs how much, the largest first."""
    memory = made.training
    parts = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "activations", "logits")}
    told = ", ".join(f"{name} {size(n)}" for name, n in sorted(parts.items(), key=lambda part: -part[1]))
    return f"a batch of {made.device_batch} × {made.context:,}: {told}"
