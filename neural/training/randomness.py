"""The state of every random generator that training draws from, as JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Self

import torch

from neural.training.distributed.world import World


@dataclass(frozen=True, slots=True)
class RandomState:
    """Torch's generators: the CPU's, and the device's where that has its own."""

    cpu: torch.Tensor  # uint8
    cuda: torch.Tensor | None  # uint8

    @classmethod
    def capture(cls, device: torch.device) -> Self:
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        """Set the generators. A run that moved from CPU to CUDA has no CUDA state: that generator stays as seeded."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)

    def gathered(self, world: World) -> tuple[Self, ...]:
        """Of all processes, in the order of ranks; all call it."""
        cpu = world.gather(self.cpu)
        cuda = [None] * world.size if self.cuda is None else world.gather(self.cuda)
        return tuple(type(self)(*states) for states in zip(cpu, cuda, strict=True))

    def to_json(self) -> dict[str, str | None]:
        return {"cpu": _encode(self.cpu), "cuda": None if self.cuda is None else _encode(self.cuda)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(_decode(value["cpu"]), None if value["cuda"] is None else _decode(value["cuda"]))


def _encode(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
