"""What `optimizer:` and `lr_schedule:` may name, with Keras' names and arguments where Keras has them."""

from __future__ import annotations

from dataclasses import dataclass

from neural.diagnostics.diagnostic import fail
from neural.graph.settings import Settings
from neural.layers.arguments import BOOLEAN, COUNT, NOT_NEGATIVE, NUMBER, POSITIVE, RATE, SIZE, Kind, argument
from neural.layers.values import Arg

NOT_POSITIVE = Kind("a number up to 0", lambda v: NUMBER.accepts(v) and v <= 0)
FROM_ONE = Kind("a number from 1", lambda v: NUMBER.accepts(v) and v >= 1)


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015."""

    learning_rate: object = argument(POSITIVE, Arg.of(1e-3))
    beta_1: object = argument(RATE, Arg.of(0.9))
    beta_2: object = argument(RATE, Arg.of(0.999))
    epsilon: object = argument(POSITIVE, Arg.of(1e-7))


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: object = argument(NOT_NEGATIVE, Arg.of(0.004))


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    learning_rate: object = argument(POSITIVE, Arg.of(0.01))
    momentum: object = argument(RATE, Arg.of(0.0))
    nesterov: object = argument(BOOLEAN, Arg.of(False))
    weight_decay: object = argument(NOT_NEGATIVE, Arg.of(0.0))


@dataclass(frozen=True)
class Lion:
    """The sign of an average of gradients (Chen et al. 2023); rates are a tenth of AdamW's."""

    learning_rate: object = argument(POSITIVE, Arg.of(1e-3))
    beta_1: object = argument(RATE, Arg.of(0.9))
    beta_2: object = argument(RATE, Arg.of(0.99))
    weight_decay: object = argument(NOT_NEGATIVE, Arg.of(0.0))


@dataclass(frozen=True)
class Adafactor:
    """Second moments by rows and columns (Shazeer and Stern 2018); the rate is relative to the size of a weight."""

    learning_rate: object = argument(POSITIVE, Arg.of(1e-3))
    beta_2_decay: object = argument(NOT_POSITIVE, Arg.of(-0.8))
    epsilon_1: object = argument(POSITIVE, Arg.of(1e-30))
    epsilon_2: object = argument(POSITIVE, Arg.of(1e-3))
    clip_threshold: object = argument(FROM_ONE, Arg.of(1.0))
    weight_decay: object = argument(NOT_NEGATIVE, Arg.of(0.0))


@dataclass(frozen=True)
class Muon(AdamW):
    """Orthogonal momentum for matrices between layers (Jordan et al. 2024), AdamW for all else.

    Its steps are as large as AdamW's (Liu et al. 2025), so that one rate serves both.
    """

    momentum: object = argument(RATE, Arg.of(0.95))
    nesterov: object = argument(BOOLEAN, Arg.of(True))
    ns_steps: object = argument(SIZE, Arg.of(5))


@dataclass(frozen=True)
class CosineDecay:
    """Linear warm-up, then half a cosine down to the minimum at the last step (Loshchilov and Hutter 2017)."""

    warmup_steps: object = argument(COUNT, Arg.of(0))
    min_learning_rate: object = argument(NOT_NEGATIVE, Arg.of(0.0))
    decay_steps: object = argument(SIZE.optional(), Arg.of(None), doc="the step of the minimum; by default the last")


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then the optimizer's learning rate."""

    warmup_steps: object = argument(COUNT, Arg.of(0))


@dataclass(frozen=True)
class LinearDecay:
    """Linear warm-up, then a straight line down to the minimum at the last step."""

    warmup_steps: object = argument(COUNT, Arg.of(0))
    min_learning_rate: object = argument(NOT_NEGATIVE, Arg.of(0.0))
    decay_steps: object = argument(SIZE.optional(), Arg.of(None), doc="the step of the minimum; by default the last")


@dataclass(frozen=True)
class InverseSquareRoot:
    """Linear warm-up, then the rate falls with the root of the step (Vaswani et al. 2017)."""

    warmup_steps: object = argument(SIZE, Arg.of(4000))


@dataclass(frozen=True)
class StepDecay:
    """Linear warm-up, then the rate is multiplied by `decay_rate` every `decay_steps`."""

    decay_steps: object = argument(SIZE)
    decay_rate: object = argument(POSITIVE, Arg.of(0.1))
    warmup_steps: object = argument(COUNT, Arg.of(0))


@dataclass(frozen=True)
class ExponentialDecay:
    """Linear warm-up, then the rate falls by `decay_rate` every `decay_steps`, a little at each."""

    decay_steps: object = argument(SIZE)
    decay_rate: object = argument(POSITIVE, Arg.of(0.1))
    warmup_steps: object = argument(COUNT, Arg.of(0))


@dataclass(frozen=True)
class WarmupStableDecay:
    """Linear warm-up, the whole rate, and a straight line down at the end (Hu et al. 2024; Hägele et al. 2024)."""

    warmup_steps: object = argument(COUNT, Arg.of(0))
    decay_steps: object = argument(SIZE.optional(), Arg.of(None), doc="how many; by default a fifth of all steps")
    min_learning_rate: object = argument(NOT_NEGATIVE, Arg.of(0.0))


OPTIMIZERS = {cls.__name__: cls for cls in (AdamW, Adam, SGD, Muon, Lion, Adafactor)}
SCHEDULES = {
    cls.__name__: cls
    for cls in (CosineDecay, Constant, LinearDecay, InverseSquareRoot, StepDecay, ExponentialDecay, WarmupStableDecay)
}

# What Keras and JAX source can be written for. PyTorch source has no optimizer: `neural train` brings them all.
PORTABLE_OPTIMIZERS = ("AdamW", "Adam", "SGD")
PORTABLE_SCHEDULES = ("CosineDecay", "Constant")


def require_portable(settings: Settings, backend: str) -> None:
    """NeuralError N843 for an optimizer or a schedule that source of another back end than PyTorch does not have."""
    schedule = settings.lr_schedule
    for what, name, known in (
        ("optimizer", settings.optimizer.name, PORTABLE_OPTIMIZERS),
        ("schedule", schedule.name if schedule else "Constant", PORTABLE_SCHEDULES),
    ):
        if name not in known:
            fail(
                "N843",
                f"{backend} source cannot be written with the {what} {name}",
                notes=(f"it can with {', '.join(known)}",),
                hint=f"choose one of these, or train with `neural train`, which has {name}",
            )
