"""How several devices share a training, as `neural train --parallel --tensor-parallel` divides it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import ceil

from neural.diagnostics.diagnostic import fail

STRATEGIES = ("ddp", "fsdp", "tp")


@dataclass(frozen=True, slots=True)
class Layout:
    """`devices` in groups of `tensor` that split the products; the groups share the sequences.

    sliced: each group holds a slice of the weights, gradients and moments alone (FSDP), else all of them (DDP).
    """

    devices: int = 1
    tensor: int = 1
    sliced: bool = False

    @classmethod
    def of(cls, devices: int, strategy: str, tensor: int | None = None) -> Layout:
        """NeuralError N732 where the devices do not divide so."""
        tensor = devices if strategy == "tp" else 1 if tensor is None else tensor
        if tensor < 1 or devices % tensor:
            fail(
                "N732",
                f"{devices} device{'s' * (devices != 1)} cannot be divided into groups of {tensor}",
                hint="give a --tensor-parallel that divides --devices",
            )
        return cls(devices, tensor, strategy == "fsdp" and devices > tensor)

    @property
    def groups(self) -> int:
        """Shares of the sequences of a step."""
        return self.devices // self.tensor

    @property
    def gathers(self) -> bool:
        """Whether weights are put together from slices (`fully_shard`; groups of `tensor` are, of one slice each)."""
        return self.sliced or 1 < self.tensor < self.devices

    def slice_of(self, count: int) -> int:
        """How much of a tensor a device holds."""
        return ceil(count / self.groups) if self.sliced else count

    def batch(self, batch_size: int, accumulation: int) -> tuple[int, int]:
        """Sequences in a forward pass of one device, and its forward passes in a step.

        The trainer's rule: shares are equal, and a batch is no larger than the whole's. NeuralError N732.
        """
        step = batch_size * accumulation
        if step % self.groups:
            fail(
                "N732",
                f"the {step:,} sequences of a step do not divide among {self.groups} devices",
                notes=(f"batch_size × gradient_accumulation is {batch_size} × {accumulation}",),
                hint=f"make it a multiple of {self.groups}, or plan for another number of devices",
            )
        own = step // self.groups
        passes = next(n for n in count(-(-own // batch_size)) if own % n == 0)  # no more than the accumulation
        return own // passes, passes

    def __str__(self) -> str:
        if self.devices == 1:
            return "alone"
        data = "fsdp" if self.sliced else "ddp"
        if self.tensor == 1:
            return data
        return "tp" if self.groups == 1 else f"{data} × tp, {self.groups} × {self.tensor}"


ALONE = Layout()
