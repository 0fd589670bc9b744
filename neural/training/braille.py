"""Curves in a terminal: eight dots a character, as Unicode's Braille patterns have them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from neural.training.series import Point

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column and row within a character
BLANK = 0x2800
ACROSS, DOWN = 2, 4  # dots in a character


def draw(points: Sequence[Point], first: int, last: int, low: float, high: float, width: int, height: int) -> list[str]:
    """`height` lines of `width` characters, with steps first to last across and values low to high upwards."""
    columns: list[list[float]] = [[] for _ in range(ACROSS * width)]
    for step, value in points:
        columns[_place(step, first, last, len(columns))].append(value)
    cells = [[BLANK] * width for _ in range(height)]
    before = None
    for x, y in _joined([fmean(column) if column else None for column in columns]):
        row = DOWN * height - 1 - _place(y, low, high, DOWN * height)
        rows = range(row, row + 1) if before is None else range(min(row, before), max(row, before) + 1)
        for dot in rows:
            cells[dot // DOWN][x // ACROSS] |= DOTS[x % ACROSS][dot % DOWN]
        before = row
    return ["".join(map(chr, line)) for line in cells]


def place(step: int, value: float, first: int, last: int, low: float, high: float, width: int, height: int):
    """The column and line of the character in which a point stands."""
    return _place(step, first, last, width), height - 1 - _place(value, low, high, height)


def _place(value: float, low: float, high: float, count: int) -> int:
    """Which of `count` equal parts of low … high a value is in; the outermost take what lies outside."""
    return min(max(int((value - low) / ((high - low) or 1) * count), 0), count - 1)


def _joined(values: list[float | None]) -> list[tuple[int, float]]:
    """Columns and values, straight lines over columns without one, from the first that has one to the last."""
    known = [(x, value) for x, value in enumerate(values) if value is not None]
    found = known[:1]
    for (x0, y0), (x1, y1) in pairwise(known):
        found += [(x, y0 + (y1 - y0) * (x - x0) / (x1 - x0)) for x in range(x0 + 1, x1 + 1)]
    return found
