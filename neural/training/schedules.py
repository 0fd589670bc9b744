"""Learning-rate schedules: pure functions from the number of finished steps to the rate of the next one."""

from __future__ import annotations

import math
from collections.abc import Callable

from neural.graph.settings import Choice

Schedule = Callable[[int], float]


def constant(learning_rate: float, *, warmup_steps: int = 0) -> Schedule:
    """Linear warm-up to `learning_rate`, which then holds."""
    return lambda step: _warmup(step, learning_rate, warmup_steps) if step < warmup_steps else learning_rate


def cosine_decay(
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    min_learning_rate: float = 0.0,
    decay_steps: int | None = None,
) -> Schedule:
    """Linear warm-up to `learning_rate`, then half a cosine down to `min_learning_rate`, which holds ever after.

    The minimum is reached at step `decay_steps`, by default at the last one, total_steps - 1.
    Loshchilov & Hutter 2017 (SGDR) without restarts, as GPT-3 (Brown et al. 2020, appendix B) and nanoGPT use it.
    """
    end = total_steps - 1 if decay_steps is None else decay_steps

    def rate(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, learning_rate, warmup_steps)
        if step >= end:
            return min_learning_rate
        done = (step - warmup_steps) / (end - warmup_steps)  # in [0, 1)
        return min_learning_rate + 0.5 * (1.0 + math.cos(math.pi * done)) * (learning_rate - min_learning_rate)

    return rate


def linear_decay(
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    min_learning_rate: float = 0.0,
    decay_steps: int | None = None,
) -> Schedule:
    """Linear warm-up, then a line down to `min_learning_rate` at step `decay_steps` (the last one), which holds."""
    end = total_steps - 1 if decay_steps is None else decay_steps

    def rate(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, learning_rate, warmup_steps)
        if step >= end:
            return min_learning_rate
        return learning_rate + (min_learning_rate - learning_rate) * (step - warmup_steps) / (end - warmup_steps)

    return rate


def inverse_square_root(learning_rate: float, *, warmup_steps: int) -> Schedule:
    """Linear warm-up, then learning_rate · sqrt(warmup_steps / step) (Vaswani et al. 2017, section 5.3)."""
    return lambda step: (
        _warmup(step, learning_rate, warmup_steps)
        if step < warmup_steps
        else learning_rate * math.sqrt(warmup_steps / step)
    )


def exponential_decay(
    learning_rate: float, *, decay_steps: int, decay_rate: float, warmup_steps: int = 0, stairs: bool = False
) -> Schedule:
    """Linear warm-up, then learning_rate · decay_rate ** (steps since / decay_steps), whole powers with `stairs`."""

    def rate(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, learning_rate, warmup_steps)
        periods = (step - warmup_steps) / decay_steps
        return learning_rate * decay_rate ** (math.floor(periods) if stairs else periods)

    return rate


def warmup_stable_decay(
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    min_learning_rate: float = 0.0,
) -> Schedule:
    """Linear warm-up, the whole rate, and in the last `decay_steps` (a fifth of all) a line down to the minimum."""
    falling = max(1, total_steps // 5) if decay_steps is None else decay_steps
    last = total_steps - 1

    def rate(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, learning_rate, warmup_steps)
        done = min(1.0, max(0.0, (step - (last - falling)) / falling))
        return learning_rate + (min_learning_rate - learning_rate) * done

    return rate


def _warmup(step: int, learning_rate: float, warmup_steps: int) -> float:
    """Above 0 from the first step on; the step after the warm-up has the whole rate."""
    return learning_rate * (step + 1) / (warmup_steps + 1)


def make_schedule(choice: Choice | None, learning_rate: float, total_steps: int) -> Schedule:
    """The schedule that a network's `lr_schedule:` names; None is a constant rate."""
    if choice is None:
        return constant(learning_rate)
    match choice.name:
        case "CosineDecay":
            return cosine_decay(learning_rate, total_steps, **choice.arguments)
        case "Constant":
            return constant(learning_rate, **choice.arguments)
        case "LinearDecay":
            return linear_decay(learning_rate, total_steps, **choice.arguments)
        case "InverseSquareRoot":
            return inverse_square_root(learning_rate, **choice.arguments)
        case "StepDecay":
            return exponential_decay(learning_rate, **choice.arguments, stairs=True)
        case "ExponentialDecay":
            return exponential_decay(learning_rate, **choice.arguments)
        case "WarmupStableDecay":
            return warmup_stable_decay(learning_rate, total_steps, **choice.arguments)
        case other:
            raise ValueError(f"no schedule {other!r}")
