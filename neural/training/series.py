"""Losses and other numbers by step, for curves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

Point = tuple[int, float]  # a step and a value


class Series:
    """Points in the order of their steps, at most `most`: neighbours become their mean where there are more."""

    def __init__(self, most: int = 2048) -> None:
        self.points: list[Point] = []
        self._most, self._run = most, 1
        self._waiting: list[Point] = []

    def add(self, step: int, value: float) -> None:
        self._waiting.append((step, value))
        if len(self._waiting) < self._run:
            return
        self.points.append(_mean(self._waiting))
        self._waiting.clear()
        if len(self.points) >= self._most:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self._run *= 2


def _mean(points: Sequence[Point]) -> Point:
    return points[-1][0], fmean(value for _, value in points)


def limits(points: Sequence[Point], settled: float = 0.05) -> tuple[float, float]:
    """The lowest value, and the highest after the first steps, whose fall would flatten all that follows."""
    after = points[0][0] + settled * (points[-1][0] - points[0][0])
    values = [value for step, value in points if step >= after]
    low, high = min(value for _, value in points), max(values)
    room = 0.02 * (high - low) or 0.5 * abs(low) or 1.0
    return low - room, high + room
