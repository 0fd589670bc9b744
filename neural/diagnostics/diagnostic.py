"""What a message is: a value with a stable code, places in the file, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from neural.diagnostics.source import Span


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Label:
    """A place, and what there is to say about it (under the caret)."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the characters of `span` by `replacement`."""

    span: Span
    replacement: str


@dataclass(frozen=True, slots=True)
class Fix:
    """Edits that mend the file. `safe`: they keep the program's meaning, so `neural check --fix` applies them."""

    title: str
    edits: tuple[Edit, ...]
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message. `code` has a page: `neural explain CODE`."""

    code: str
    title: str
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str | None = None
    fix: Fix | None = None
    severity: Severity = Severity.ERROR


class NeuralError(Exception):
    """The user's mistake, as messages. The command line prints them and exits with 2."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(f"{d.code}: {d.title}" for d in diagnostics))
        self.diagnostics = diagnostics


def fail(
    code: str, title: str, *, primary: Label | None = None, notes: tuple[str, ...] = (), hint: str | None = None
) -> NoReturn:
    """Raise a NeuralError of a single message."""
    raise NeuralError(Diagnostic(code, title, primary, notes=notes, hint=hint))
