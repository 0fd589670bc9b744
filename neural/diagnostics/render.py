"""Messages as text: drawn with the lines they are about, or as plain values for tools."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from neural.diagnostics.diagnostic import Diagnostic, Fix, Label, Severity
from neural.diagnostics.source import Source, Span

WIDTH = 160
"""Columns of a source line that are shown; of a longer line, what stands around the label."""

TAB = 4

_RESET, _BOLD, _BLUE, _CYAN = "\x1b[0m", "\x1b[1m", "\x1b[1;34m", "\x1b[1;36m"
_SEVERITY = {Severity.ERROR: "\x1b[1;31m", Severity.WARNING: "\x1b[1;33m", Severity.NOTE: "\x1b[1;32m"}


def render(diagnostics: Iterable[Diagnostic], *, color: bool) -> str:
    """All messages, each with an empty line behind it."""
    return "".join(_Drawing(d, color).text() + "\n" for d in diagnostics)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`; empty without messages."""
    kinds = [d.severity for d in diagnostics]
    counts = ((kinds.count(severity), severity.value) for severity in Severity)
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n)


def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict]:
    """Messages as values for `--json`: lines and columns count from 1, character offsets from 0; ends are exclusive."""
    return [
        {
            "code": d.code,
            "severity": d.severity.value,
            "title": d.title,
            **(_place(d.primary.span) if d.primary else {"file": None, "start": None, "end": None}),
            "label": d.primary.text if d.primary else "",
            "secondary": [{**_place(label.span), "label": label.text} for label in d.secondary],
            "notes": list(d.notes),
            "hint": d.hint,
            "fix": d.fix and _fix(d.fix),
        }
        for d in diagnostics
    ]


def _place(span: Span) -> dict:
    ends = {}
    for key, offset in (("start", span.start), ("end", span.end)):
        line, column = span.source.line_column(offset)
        ends[key] = {"line": line, "column": column, "offset": offset}
    return {"file": span.source.name, **ends}


def _fix(fix: Fix) -> dict:
    edits = [{**_place(edit.span), "replacement": edit.replacement} for edit in fix.edits]
    return {"title": fix.title, "safe": fix.safe, "edits": edits}


def apply_fixes(source_text: str, fixes: Iterable[Fix]) -> str:
    """The text with the edits of the fixes made; a fix that overlaps one before it is left out."""
    taken: list[tuple[int, int, str]] = []
    for fix in fixes:
        edits = [(e.span.start, e.span.end, e.replacement) for e in fix.edits]
        if not any(_overlap(new, old) for new in edits for old in taken):
            taken.extend(edits)
    for start, end, replacement in sorted(taken, reverse=True):
        source_text = source_text[:start] + replacement + source_text[end:]
    return source_text


def _overlap(a: tuple[int, int, str], b: tuple[int, int, str]) -> bool:
    return a[:2] == b[:2] or (a[0] < b[1] and b[0] < a[1])


@dataclass(frozen=True, slots=True)
class _Mark:
    """A label, or one end of a label of several lines, on one line: display columns [start, end)."""

    start: int
    end: int
    text: str
    primary: bool


class _Drawing:
    """One message, drawn as rustc draws it."""

    def __init__(self, diagnostic: Diagnostic, color: bool) -> None:
        self.diagnostic = diagnostic
        self.color = color
        self.labels = [
            (label, label is diagnostic.primary) for label in (diagnostic.primary, *diagnostic.secondary) if label
        ]
        lines = [n for label, _ in self.labels for n in _lines(label.span)]
        self.gutter = len(str(max(lines, default=0)))
        self.out: list[str] = []

    def text(self) -> str:
        d = self.diagnostic
        strong = _SEVERITY[d.severity]
        self.out.append(
            f"{self.paint(strong, f'{d.severity.value}[{d.code}]')}{self.paint(_BOLD, f': {_safe(d.title)}')}"
        )
        sources: dict[int, Source] = {id(label.span.source): label.span.source for label, _ in self.labels}
        for index, source in enumerate(sources.values()):
            self.file(source, index == 0)
        if self.labels and (d.notes or d.hint or d.fix):
            self.bar()
        for note in d.notes:
            self.remark("note", note)
        if d.hint:
            self.remark("help", d.hint)
        if d.fix:
            self.remark("help", d.fix.title + (" (`neural check --fix` does it)" if d.fix.safe else ""))
        return "\n".join(line.rstrip() for line in self.out) + "\n"

    def paint(self, style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if self.color and text else text

    def bar(self, number: str = "", rest: str = "") -> None:
        self.out.append(f"{self.paint(_BLUE, f'{number:>{self.gutter}} |')}{' ' if rest else ''}{rest}")

    def remark(self, kind: str, text: str) -> None:
        first, *others = _safe(text, keep="\n").split("\n")
        pad = " " * self.gutter
        self.out.append(
            f"{pad} {self.paint(_BLUE, '=')} {self.paint(_CYAN if kind == 'help' else _BOLD, kind)}: {first}"
        )
        self.out.extend(f"{pad}   {' ' * len(kind)}  {line}" for line in others)

    def file(self, source: Source, first: bool) -> None:
        labels = [(label, primary) for label, primary in self.labels if label.span.source is source]
        line, column = source.line_column(labels[0][0].span.start)
        arrow = "-->" if first else ":::"
        self.out.append(f"{' ' * self.gutter}{self.paint(_BLUE, arrow)} {_safe(source.name)}:{line}:{column}")
        self.bar()
        shown = sorted({n for label, _ in labels for n in _lines(label.span)})
        previous = 0
        for number in shown:
            if previous and number == previous + 2:
                self.source_line(source, previous + 1, [])
            elif previous and number > previous + 2:
                self.out.append(self.paint(_BLUE, "..."))
            self.source_line(
                source,
                number,
                [_mark(label, primary, number) for label, primary in labels if number in _lines(label.span)],
            )
            previous = number

    def source_line(self, source: Source, number: int, marks: list[_Mark]) -> None:
        text, marks = _window(source.line(number), marks)
        line, columns = _display(text)
        self.bar(str(number), line)
        placed = [_Mark(columns[m.start], max(columns[m.end], columns[m.start] + 1), m.text, m.primary) for m in marks]
        for row in self.rows(placed):
            self.bar("", row)

    def rows(self, marks: list[_Mark]) -> list[str]:
        """The carets under a line, the text of the last one behind them, the others on lines of their own below."""
        if not marks:
            return []
        marks = sorted(marks, key=lambda m: (m.start, m.primary))
        cells: dict[int, tuple[str, bool]] = {}
        for mark in sorted(marks, key=lambda m: m.primary):
            for column in range(mark.start, mark.end):
                cells[column] = ("^" if mark.primary else "-", mark.primary)
        last = marks[-1]
        beside = last.text if last.end >= max(m.end for m in marks) else ""
        rows = [self.carets(cells) + (" " + self.tint(last.primary, _safe(beside)) if beside else "")]
        hanging = [m for m in marks if m.text and not (m is last and beside)]
        if hanging:
            rows.append(self.hang(hanging))
        while hanging:
            mark = hanging.pop()
            rows.append(self.hang(hanging, mark))
        return rows

    def carets(self, cells: dict[int, tuple[str, bool]]) -> str:
        out, column = "", 0
        for at in sorted(cells):
            character, primary = cells[at]
            out += " " * (at - column) + self.tint(primary, character)
            column = at + 1
        return (
            out.replace(_RESET + _SEVERITY[self.diagnostic.severity], "").replace(_RESET + _BLUE, "")
            if self.color
            else out
        )

    def hang(self, marks: Sequence[_Mark], labelled: _Mark | None = None) -> str:
        out, column = "", 0
        for mark in marks:
            if mark.start >= column and not (labelled and mark.start == labelled.start):
                out += " " * (mark.start - column) + self.tint(mark.primary, "|")
                column = mark.start + 1
        if labelled:
            out += " " * (labelled.start - column) + self.tint(labelled.primary, _safe(labelled.text))
        return out

    def tint(self, primary: bool, text: str) -> str:
        return self.paint(_SEVERITY[self.diagnostic.severity] if primary else _BLUE, text)


def _lines(span: Span) -> tuple[int, ...]:
    """The lines of a span that are drawn: the first, and the last where it is another."""
    first = span.source.line_column(span.start)[0]
    last = span.source.line_column(max(span.start, span.end - 1))[0]
    return (first,) if first == last else (first, last)


def _mark(label: Label, primary: bool, number: int) -> _Mark:
    """The part of a label that stands on a line, in characters of the line; its text at the last line."""
    span, source = label.span, label.span.source
    begin = source.line_starts[number - 1]
    text = source.line(number)
    lines = _lines(span)
    start = span.start - begin if number == lines[0] else len(text) - len(text.lstrip())
    end = span.end - begin if number == lines[-1] else len(text)
    start = min(start, len(text))
    words = label.text if number == lines[-1] else ""
    if len(lines) > 1 and number == lines[0]:
        words = f"from here to line {lines[-1]}"
    return _Mark(start, max(start, min(end, len(text))), words, primary)


def _window(text: str, marks: list[_Mark]) -> tuple[str, list[_Mark]]:
    """Of a line that is too long, the part around its first label, with `…` where it was cut."""
    if len(text) <= WIDTH:
        return text, marks
    focus = min((m.start for m in marks if m.primary), default=min((m.start for m in marks), default=0))
    begin = max(0, min(focus - WIDTH // 3, len(text) - WIDTH))
    end = min(len(text), begin + WIDTH)
    head, tail = "…" * (begin > 0), "…" * (end < len(text))

    def moved(offset: int) -> int:
        return min(max(offset, begin), end) - begin + len(head)

    return head + text[begin:end] + tail, [_Mark(moved(m.start), moved(m.end), m.text, m.primary) for m in marks]


def _display(text: str) -> tuple[str, list[int]]:
    """The line as it is shown, and the display column at which each of its characters (and its end) stands."""
    shown: list[str] = []
    columns: list[int] = []
    column = 0
    for index, c in enumerate(text):
        columns.append(column)
        if c == "\t":
            piece = " " * (TAB - column % TAB)
        elif _printable(c) or (_width(c) == 0 and index and c != "\u202e"):
            piece = c
        else:
            piece = _escape(c)
        shown.append(piece)
        column += _width(c) if piece == c else len(piece)
    columns.append(column)
    return "".join(shown), columns


def _printable(c: str) -> bool:
    return c.isprintable() and not unicodedata.category(c).startswith("C")


def _width(c: str) -> int:
    """Columns of a terminal that a character takes: 2 for wide ones, 0 for those that join the one before."""
    if c < "\u0300":
        return 1
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me") or c in "\u200d\ufe0e\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def _escape(c: str) -> str:
    return f"\\x{ord(c):02x}" if ord(c) < 0x100 else f"\\u{{{ord(c):x}}}"


def _safe(text: str, keep: str = "") -> str:
    """Text without characters that would steer the terminal."""
    return "".join(c if _printable(c) or c in keep or _width(c) == 0 else _escape(c) for c in text)
