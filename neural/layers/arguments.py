"""What an argument of a layer (or of an optimizer, or a train key) may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A set of values. `expected` completes "… takes …"."""

    expected: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()

    def optional(self) -> Kind:
        return Kind(f"{self.expected}, or none", lambda v: v is None or self.accepts(v), self.choices)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def choice(*names: str) -> Kind:
    return Kind("one of " + ", ".join(f'"{n}"' for n in names), lambda v: isinstance(v, str) and v in names, names)


SIZE = Kind("a whole number from 1", lambda v: _whole(v) and 1 <= v <= LARGEST)
COUNT = Kind("a whole number from 0", lambda v: _whole(v) and 0 <= v <= LARGEST)
INTEGER = Kind("a whole number", lambda v: _whole(v) and abs(v) <= LARGEST)
RATE = Kind("a number from 0 to below 1", lambda v: _number(v) and 0 <= v < 1)
POSITIVE = Kind("a number above 0", lambda v: _number(v) and v > 0)
NOT_NEGATIVE = Kind("a number from 0", lambda v: _number(v) and v >= 0)
NUMBER = Kind("a number", _number)
BOOLEAN = Kind("true or false", lambda v: isinstance(v, bool))
TEXT = Kind("a string", lambda v: isinstance(v, str) and v != "")
SIZES = Kind(
    "a tuple of whole numbers from 1 (one of them may be -1)",
    lambda v: (
        isinstance(v, tuple) and v and all(_whole(n) and (n == -1 or 1 <= n <= LARGEST) for n in v) and v.count(-1) <= 1
    ),
)


def argument(kind: Kind, default: Any = MISSING, doc: str = "", *, stand_in: Any = None) -> Any:
    """A dataclass field that the language can set. Fields without a default must be given.

    stand_in: after a mistake in this argument the compiler goes on with it. Only for what bears on no shape.
    """
    metadata = {"kind": kind, "doc": doc, "stand_in": stand_in}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument as the binder sees it."""

    name: str
    kind: Kind
    default: Any  # MISSING where it must be given
    doc: str
    stand_in: Any = None

    @property
    def required(self) -> bool:
        return self.default is MISSING


def parameters(cls: type) -> tuple[Parameter, ...]:
    """The arguments that a dataclass declares, in the order in which they bind by position."""
    return tuple(
        Parameter(f.name, f.metadata["kind"], f.default, f.metadata["doc"], f.metadata["stand_in"])
        for f in fields(cls)
        if "kind" in f.metadata
    )
