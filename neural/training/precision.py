"""In which precision products are computed: what the hardware has in silicon, and no emulation unless it is asked for.

Weights, gradients and moments are float32 in any case: half precision is torch.autocast's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch

from neural.compiler import Program
from neural.planning.precision import AUTO, FULL, SMALL

BF16, FP16 = "bfloat16", "float16"
TENSOR_CORES, WITH_BF16 = (7, 0), (8, 0)  # NVIDIA's compute capabilities from which they are there


def chosen_precision(program: Program, device: torch.device) -> tuple[str, str | None]:
    """The precision that the file's `execution` asks for, or for "auto" the best of the device; and a word of warning.

    On a CPU a small model stays in float32: casting costs it more than faster products save.
    """
    asked = program.settings.execution.get("precision", AUTO)
    there = silicon(device)
    if asked == AUTO:
        small = device.type == "cpu" and program.parameter_count < SMALL
        return (FULL if small or not there else there[0]), None
    if asked == FULL or asked in there:
        return asked, None
    return asked, f"{asked} is emulated on this {device.type}: float32 would be faster"


def silicon(device: torch.device) -> tuple[str, ...]:
    """The half precisions in which the device has products, the best first."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return (BF16, FP16) if capability >= WITH_BF16 else (FP16,) if capability >= TENSOR_CORES else ()
    return (BF16,) if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else ()


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Around a forward pass. Nothing is kept of the casts: each weight is read once, and threads would share them."""
    if precision == FULL:
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, precision), cache_enabled=False)


@dataclass(slots=True)
class LossScale:
    """What the loss is multiplied by, so that small gradients are not 0 in float16 (Micikevicius et al. 2018).

    It is halved where the gradient overflows, and doubled after 2,000 steps without.
    """

    value: float = 65536.0
    steps: int = 0  # since it changed

    GROWS_AFTER = 2000

    @classmethod
    def of(cls, precision: str) -> Self | None:
        return cls() if precision == FP16 else None

    def overflowed(self, norm: torch.Tensor) -> bool:
        """Note the gradient's norm. True if it shall be made again, with the scale that is now half as large."""
        if not norm.isfinite() and self.value > 1:
            self.value, self.steps = self.value / 2, 0
            return True
        self.steps += 1
        if self.steps >= self.GROWS_AFTER:
            self.value, self.steps = self.value * 2, 0
        return False

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "steps": self.steps}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)
