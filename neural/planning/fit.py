"""Whether a training fits into the memory of its devices, and what to change where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from neural.diagnostics.diagnostic import NeuralError
from neural.planning.layout import Layout
from neural.planning.plan import Plan

MOST_DEVICES = 1024
CHECKPOINTING = "execution { activation_checkpointing: true }"
Make = Callable[..., Plan]  # the same plan with other keyword arguments of `neural.planning.plan.plan`


@dataclass(frozen=True, slots=True)
class Way:
    """A change, as it is written into the file or given, and the plan with it."""

    change: str
    plan: Plan


def ways_to_fit(plan: Plan, usable: int, make: Make) -> tuple[Way, ...]:
    """Changes after which a device needs no more than `usable` bytes; several together only where no single one does.

    `make` gives the plan with changes. A smaller batch keeps the sequences of a step by more accumulation.
    """
    blocks = any(p.parts for p in plan.parts) and not plan.checkpointing
    again = {"checkpointing": True} if blocks else {}
    alone = [Way(CHECKPOINTING, make(**again))] if blocks else []
    singles = [*alone, *_smaller_batch(plan, usable, make, {}), *_sliced(plan, usable, make, {})]
    fitting = [way for way in singles if way.plan.training.total <= usable]
    if not fitting:
        both = [*_smaller_batch(plan, usable, make, again), *_sliced(plan, usable, make, again)]
        fitting = [Way(f"{CHECKPOINTING}, {way.change}" if blocks else way.change, way.plan) for way in both]
    return tuple(fitting)


def _smaller_batch(plan: Plan, usable: int, make: Make, more: dict[str, bool]) -> Iterator[Way]:
    """The largest batch that fits. Halving finds the most that do, whatever the file asks for, and divisors follow."""
    step, groups = plan.batch_size * plan.gradient_accumulation, plan.layout.groups
    most, too_many = 0, plan.device_batch
    while too_many - most > 1:
        size = (most + too_many) // 2
        fits = make(batch_size=size, accumulation=2 * groups, **more).training.total <= usable
        most, too_many = (size, too_many) if fits else (most, size)
    for size in range(most, 0, -1):
        if step % size == 0 and (step // size) % groups == 0:
            made = make(batch_size=size, accumulation=step // size, **more)
            if made.training.total <= usable:
                yield Way(f"train {{ batch_size: {size} gradient_accumulation: {step // size} }}", made)
                return


def _sliced(plan: Plan, usable: int, make: Make, more: dict[str, bool]) -> Iterator[Way]:
    """FSDP on as many devices as there are, or on the fewest of twice, four times, … as many."""
    devices = plan.layout.devices
    while devices <= MOST_DEVICES:
        layout = Layout.of(devices, "fsdp", plan.layout.tensor)
        if layout.sliced:
            try:
                made = make(layout=layout, **more)
            except NeuralError:  # the sequences of a step do not divide among so many
                return
            if made.training.total <= usable:
                yield Way(f"--devices {devices} --parallel fsdp", made)
                return
        devices *= 2
