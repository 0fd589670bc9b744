"""Numbers that remember how they were written, and the shapes made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

Scalar = int | float | str | bool | None

_NUMBER = re.compile(r"-?[\d._]+(e[+-]?\d+)?", re.IGNORECASE)
_ATOM = re.compile(r"[A-Za-z_][\w.]*|\d[\w.]*(?:e[+-]?\d+)?|\(.*\)")


def operand(text: str) -> str:
    """Text that can stand beside a `*`."""
    return text if _ATOM.fullmatch(text) else f"({text})"


@dataclass(frozen=True, slots=True)
class Arg:
    """A value and its expression: 3072, written `4 * d_model`.

    text: the expression in the scope that the value stands in (a class of the generated source).
    root: the same in the scope of the network, where the parameters of a `define` have no names.
    axis: "B" or "T" where the value is the length of that symbolic axis (for T, its greatest length).
    """

    value: Scalar | tuple
    text: str
    root: str
    axis: str = ""

    @staticmethod
    def of(value: Scalar | tuple) -> Arg:
        return Arg(value, repr(value), repr(value))

    @property
    def literal(self) -> bool:
        """Whether it is written as a number or the like, and not by a name."""
        return self.text == repr(self.value) or _NUMBER.fullmatch(self.text) is not None

    def named(self, text: str) -> Arg:
        """The same value under a name of the present scope."""
        return replace(self, text=text)

    def _combine(self, op: str, other: Arg | int, value: Scalar) -> Arg:
        other = other if isinstance(other, Arg) else Arg.of(other)
        if self.literal and other.literal:
            return Arg.of(value)
        return Arg(
            value,
            f"{operand(self.text)} {op} {operand(other.text)}",
            f"{operand(self.root)} {op} {operand(other.root)}",
        )

    def times(self, other: Arg | int) -> Arg:
        factor = other.value if isinstance(other, Arg) else other
        if factor == 1:
            return self
        if self.value == 1 and isinstance(other, Arg):
            return other
        return self._combine("*", other, self.value * factor)

    def plus(self, other: Arg | int) -> Arg:
        """The sum; the brackets of left-hand sums are left out."""
        other = other if isinstance(other, Arg) else Arg.of(other)
        if self.literal and other.literal:
            return Arg.of(self.value + other.value)
        if self.text == other.text:
            return Arg.of(2).times(self)
        return Arg(self.value + other.value, f"{self.text} + {other.text}", f"{self.root} + {other.root}")

    def over(self, other: Arg) -> Arg:
        """The whole quotient."""
        return self if other.value == 1 else self._combine("//", other, self.value // other.value)

    def __str__(self) -> str:
        return self.axis or self.text


BATCH = Arg(None, "B", "B", "B")

Shape = tuple[Arg, ...]


class Value(NamedTuple):
    """What flows between layers. dtype is "float32" or "int64"."""

    name: str
    shape: Shape
    dtype: str = "float32"


def same(a: Shape, b: Shape) -> bool:
    """Equal axis by axis: symbols with symbols, numbers with numbers."""
    return [(x.value, x.axis) for x in a] == [(x.value, x.axis) for x in b]


def draw(shape: Shape) -> str:
    """A shape for a message, with values beside expressions: `(B, T, 4 * d_model = 3072)`."""
    return "(" + ", ".join(a.axis or _with_value(a) for a in shape) + ("," if len(shape) == 1 else "") + ")"


def _with_value(arg: Arg) -> str:
    return arg.root if arg.root == repr(arg.value) else f"{arg.root} = {arg.value}"
