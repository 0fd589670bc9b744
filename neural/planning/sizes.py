"""How large values are once the batch and the length of its sequences are numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from neural.layers.values import Arg, Shape, Value

FLOAT = 4  # bytes of a float32
HALF = 2  # of a bfloat16 or a float16
BYTES = {"float32": FLOAT, "bfloat16": HALF, "float16": HALF, "int64": 8}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan is made for.

    batch: sequences (rows) in one forward pass. length: tokens in a sequence; None leaves every sequence as long as the
    program allows. device: "cuda" (fused kernels) or "cpu". own_kernels: whether dropout and causal attention are the
    trainer's own (`neural.training.cpu_kernels`). threads: of a CPU, that take sequences of their own.
    """

    batch: int
    length: int | None
    device: str
    own_kernels: bool = False
    threads: int = 1

    def axis(self, arg: Arg) -> int:
        """The length of an axis."""
        if arg.axis == "B":
            return self.batch
        return self.length if arg.axis == "T" and self.length is not None else arg.value

    def numbers(self, shape: Shape) -> int:
        """How many numbers a value of that shape holds."""
        return prod(self.axis(a) for a in shape)

    def bytes(self, *values: Value) -> int:
        """Bytes of values together."""
        return sum(BYTES[v.dtype] * self.numbers(v.shape) for v in values)

    def rows(self, value: Value) -> int:
        """How many vectors a value holds: all axes but the last."""
        return self.numbers(value.shape[:-1])

    def fixed(self, value: Value) -> Value:
        """The value with this setting's length in place of the longest; B stays a symbol."""
        shape = tuple(replace(a, value=self.axis(a)) if a.axis == "T" else a for a in value.shape)
        return value._replace(shape=shape)

    def sequence(self, value: Value) -> int:
        """Tokens in a row of the batch; 1 where the value has no T axis."""
        return prod(self.axis(a) for a in value.shape if a.axis == "T")
