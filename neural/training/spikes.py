"""Steps whose loss or gradient stands far above those before them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Self

WINDOW = 128  # steps that a step is held against
ENOUGH = 64  # fewer say too little
DEVIATIONS = 6.0


@dataclass(slots=True)
class Spikes:
    """Which steps are spikes: a loss or a gradient norm more than 6 standard deviations above the mean of 128 steps.

    The rule is OLMo 2's (2024, section 3.1 "skip step"). A spike counts among the steps that the next ones are held
    against, so that a loss that rises for good is not one for ever.
    """

    count: int = 0  # since the training began
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def sees(self, loss: float, norm: float) -> bool:
        """Whether the step of this loss and gradient norm is a spike. It is remembered either way."""
        spike = _stands_out(loss, self.losses) or _stands_out(norm, self.norms)
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]
        self.count += spike
        return spike

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)


def _stands_out(value: float, before: list[float]) -> bool:
    if len(before) < ENOUGH:
        return False
    mean = statistics.fmean(before)
    return value > mean + DEVIATIONS * statistics.pstdev(before, mean)
