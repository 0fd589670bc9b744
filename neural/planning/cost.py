"""Time, energy and money of a training, from the work that it is and what is assumed of the devices."""

from __future__ import annotations

from dataclasses import dataclass

from neural.planning.hardware import Hardware
from neural.planning.plan import Plan

SHARE = 0.4  # of the peak, that good trainers reach with large models in half precision, communication and all


@dataclass(frozen=True, slots=True)
class Assumptions:
    """count: devices. share: of the peak operations a second that are useful. flops: that peak, of one device."""

    count: int
    share: float
    flops: float
    watts: float | None
    price: float | None  # of a device for an hour


@dataclass(frozen=True, slots=True)
class Cost:
    """What all tokens cost. Seconds are of the whole machine; what was not assumed is None."""

    tokens: int
    step_seconds: float
    tokens_per_second: float
    seconds: float
    kwh: float | None
    money: float | None
    assumed: Assumptions


def assumptions(
    hardware: Hardware, count: int, precision: str, share: float, watts: float | None, price: float | None
) -> Assumptions | None:
    """Of so many devices; None where their operations a second are not known."""
    flops = hardware.flops(precision)
    if flops is None:
        return None
    watts = hardware.watts if watts is None else watts
    return Assumptions(count, share, flops, watts, hardware.price if price is None else price)


def cost(plan: Plan, tokens: int, assumed: Assumptions) -> Cost:
    """Of training on `tokens` tokens. What checkpointing computes twice takes its time."""
    speed = assumed.count * assumed.share * assumed.flops / plan.flops_per_token_training
    seconds = tokens / speed
    device_hours = assumed.count * seconds / 3600
    return Cost(
        tokens=tokens,
        step_seconds=plan.tokens_per_step / speed,
        tokens_per_second=speed,
        seconds=seconds,
        kwh=None if assumed.watts is None else device_hours * assumed.watts / 1000,
        money=None if assumed.price is None else device_hours * assumed.price,
        assumed=assumed,
    )
