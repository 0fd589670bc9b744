"""The messages of one compilation, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from neural.diagnostics.diagnostic import Diagnostic, Label, Severity
from neural.diagnostics.source import Span
from neural.syntax.literals import shorten, write_string

# What a passage that could not be read may have held: without it, such a message may be untrue, unless it is of a slip
# of spelling (N201 to N512 with a fix). Names that statements give are lost more often than misspelt.
ABSENCES = frozenset(("N007", "N009", "N201", "N205", "N206", "N207", "N302", "N309", "N310", "N501", "N512"))
LOST_NAMES = frozenset(("N209", "N210"))
CALLS = 3  # so many calls that led to a place are shown
LONGEST = 300  # characters of a line of a message


class Poisoned(Exception):
    """What is needed here was the place of a mistake that has been told. Silences what would follow from it."""


class Messages:
    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.calls: list[Span] = []  # of the defines that are being lowered, the outermost first
        self._found: dict[tuple, Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        if self.strict and diagnostic.code.startswith("N6") and diagnostic.severity is Severity.NOTE:
            diagnostic = replace(diagnostic, severity=Severity.ERROR)
        place = diagnostic.primary and (diagnostic.primary.span.source.name, diagnostic.primary.span.start)
        self._found.setdefault((diagnostic.code, place, None if place else diagnostic.title), diagnostic)

    def error(
        self, code: str, title: str, span: Span | None, label: str = "", *, secondary: tuple[Label, ...] = (),
        called: bool | None = None, hint: str | None = None, **rest: Any,
    ) -> Poisoned:  # fmt: skip
        """Note an error; the caller raises what this returns where it cannot go on.

        called: whether the calls that led here have a part in it; by default for shapes alone.
        """
        if code.startswith("N4") if called is None else called:
            secondary += tuple(Label(place, "called here") for place in self.calls[: -CALLS - 1 : -1])
        primary = span and Label(span, shorten(label, LONGEST))
        self.add(
            Diagnostic(code, shorten(title, LONGEST), primary, secondary, hint=hint and shorten(hint, LONGEST), **rest)
        )
        return Poisoned()

    def warning(self, code: str, title: str, span: Span, label: str = "", **rest: Any) -> None:
        self.add(Diagnostic(code, title, Label(span, label), severity=Severity.WARNING, **rest))

    def note(self, code: str, title: str, span: Span, label: str = "", **rest: Any) -> None:
        self.add(Diagnostic(code, title, Label(span, label), severity=Severity.NOTE, **rest))

    @property
    def all(self) -> tuple[Diagnostic, ...]:
        """In the order of the files' text, without those that may only follow from what could not be read."""
        every = sorted(self._found.values(), key=lambda d: _place(d) or ("", -1))
        seen, broken = set(), any(d.severity is Severity.ERROR for d in every)
        lost = [d for d in every if d.code.startswith("N1") or (d.code < "N007" and d.primary)]
        lines = {line for d in lost for line in _lines(d)}
        told = []
        for d in every:
            if (d.code == "N201" or (d.code == "N301" and not d.fix)) and (d.title in seen or seen.add(d.title)):
                continue  # one missing parameter is one mistake, however often it is read or given
            if broken and d.code == "N214":
                continue  # what would have read it may have the mistake
            if not lost or d in lost or not (_follows(d) or lines & _lines(d)):
                told.append(d)
        return tuple(told)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.all if d.severity is Severity.ERROR)


def _place(diagnostic: Diagnostic) -> tuple[str, int] | None:
    return diagnostic.primary and (diagnostic.primary.span.source.name, diagnostic.primary.span.start)


def _lines(diagnostic: Diagnostic) -> set[tuple[str, int]]:
    spans = [label.span for label in (diagnostic.primary, *diagnostic.secondary) if label]
    return {(span.source.name, span.source.line_column(span.start)[0]) for span in spans}


def _follows(diagnostic: Diagnostic) -> bool:
    """Whether something that was not read may be the cause: a shape, or an absence that is no slip of spelling."""
    shapes = diagnostic.code.startswith(("N4", "N6")) or diagnostic.severity is not Severity.ERROR
    return shapes or diagnostic.code in LOST_NAMES or (diagnostic.code in ABSENCES and diagnostic.fix is None)


def shown(value: Any) -> str:
    """A value as the language writes it, cut where it is long."""
    if isinstance(value, str):
        return shorten(write_string(value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return shorten("(" + ", ".join(map(shown, value[:20])) + ("," if len(value) == 1 else "") + ")")
    return shorten(repr(value))
