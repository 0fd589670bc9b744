"""JSON of others, read with care: whole, of a bounded size, and each field of the type that is needed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from neural.diagnostics.diagnostic import fail

LARGEST_FILE = 1 << 28  # bytes; the largest tokenizer.json known has 33 million
LARGEST_SIZE = 1 << 40  # of one axis

MISSING = object()


def read_text(path: Path) -> str:
    """A UTF-8 file. NeuralError N863 where it is not one or is far too large."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        fail("N863", f"{path} has {size:,} bytes, and such a file has at most {LARGEST_FILE:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fail("N863", f"{path} is not UTF-8 text (byte {error.start:,})")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. NeuralError N863 where the file is not one."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        fail("N863", f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except (ValueError, RecursionError):  # an integer of thousands of digits; brackets thousands deep
        fail("N863", f"{path} is not readable JSON: a number or nesting beyond all bounds")
    if not isinstance(value, dict):
        fail("N863", f"{path} holds a {type(value).__name__}, and a JSON object is expected")
    return value


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a configuration. Each reader raises NeuralError N864 for a missing one or one of another type.

    A default is what its absence means, and null is absence.
    """

    values: dict[str, Any]
    path: Path

    def size(self, name: str, default: Any = MISSING, least: int = 1, largest: int = LARGEST_SIZE) -> Any:
        """A whole number from `least` on."""
        value = self.get(name, default)
        if value is default:
            return value
        if type(value) is not int or not least <= value <= largest:
            self.refuse(name, f"a whole number from {least} to {largest:,}")
        return value

    def number(self, name: str, default: Any = MISSING, *, zero: bool = False) -> Any:
        """A number above 0, or from 0."""
        value = self.get(name, default)
        if value is default:
            return value
        finite = type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
        if not finite or value < 0 or (value == 0 and not zero):
            self.refuse(name, "a number from 0" if zero else "a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        return value if type(value) is bool else self.refuse(name, "true or false")

    def text(self, name: str, default: Any = MISSING) -> Any:
        value = self.get(name, default)
        return value if value is default or type(value) is str else self.refuse(name, "a text")

    def group(self, name: str) -> Fields | None:
        """An object inside this one; None where it is absent."""
        value = self.get(name, None)
        if value is not None and type(value) is not dict:
            self.refuse(name, "an object")
        return None if value is None else Fields(value, self.path)

    def get(self, name: str, default: Any = MISSING) -> Any:
        """As it stands."""
        value = self.values.get(name)
        if value is None and default is MISSING:
            fail("N864", f"{self.path} lacks `{name}`, without which the model is not known")
        return default if value is None else value

    def refuse(self, name: str, expected: str) -> NoReturn:
        fail("N864", f"`{name}` in {self.path} is {_short(self.values.get(name))}, and {expected} is expected")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number beyond all bounds"
    return text if len(text) <= 60 else f"{text[:57]}…"
