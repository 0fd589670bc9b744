"""The messages of one compilation, each once."""

from __future__ import annotations

from dataclasses import replace

from neural.diagnostics.diagnostic import Diagnostic, Label, Severity
from neural.diagnostics.source import Span


class Poisoned(Exception):
    """What is needed here was the place of a mistake that has been told. Silences what would follow from it."""


class Messages:
    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._found: dict[tuple, Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        if self.strict and diagnostic.code.startswith("N6") and diagnostic.severity is Severity.NOTE:
            diagnostic = replace(diagnostic, severity=Severity.ERROR)
        place = diagnostic.primary and (diagnostic.primary.span.source.name, diagnostic.primary.span.start)
        self._found.setdefault((diagnostic.code, place, None if place else diagnostic.title), diagnostic)

    def error(self, code: str, title: str, span: Span | None, label: str = "", **rest) -> Poisoned:
        """Note an error; the caller raises what this returns where it cannot go on."""
        self.add(Diagnostic(code, title, span and Label(span, label), **rest))
        return Poisoned()

    def warning(self, code: str, title: str, span: Span, label: str = "", **rest) -> None:
        self.add(Diagnostic(code, title, Label(span, label), severity=Severity.WARNING, **rest))

    def note(self, code: str, title: str, span: Span, label: str = "", **rest) -> None:
        self.add(Diagnostic(code, title, Label(span, label), severity=Severity.NOTE, **rest))

    @property
    def all(self) -> tuple[Diagnostic, ...]:
        """In the order of the files' text."""
        return tuple(sorted(self._found.values(), key=lambda d: (d.primary.span.source.name, d.primary.span.start) if d.primary else ("", -1)))

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.all if d.severity is Severity.ERROR)
