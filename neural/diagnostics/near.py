"""Which of the known names did the author mean?"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 64
"""Longer names are not compared: nobody mistypes 65 letters, and the work stays bounded."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate fewest typing slips away from `name`, or None where none is near.

    A slip is an inserted, missing, wrong or swapped letter (Damerau–Levenshtein, optimal string alignment).
    Up to a third of the letters may be wrong, at least one and at most four; a difference of case alone is always near.
    Of equally near candidates the one that begins like the name the longest, then the first in the alphabet.
    """
    if not name or len(name) > LONGEST:
        return None
    limit = min(4, max(1, len(name) // 3))
    best: tuple[int, int, str] | None = None
    for candidate in candidates:
        if not candidate or candidate == name or abs(len(candidate) - len(name)) > limit:
            continue
        distance = _distance(name.lower(), candidate.lower(), limit)
        if distance > limit or distance >= max(len(name), len(candidate)):
            continue
        key = (distance, -_shared(name.lower(), candidate.lower()), candidate)
        best = key if best is None else min(best, key)
    return best and best[2]


def _shared(a: str, b: str) -> int:
    """How many letters two names have in common at their beginnings."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _distance(a: str, b: str, limit: int) -> int:
    """Optimal string alignment distance; any number above `limit` once it must exceed it."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        following = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[j] + 1, following[j - 1] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            following.append(cost)
        if min(following) > limit:
            return limit + 1
        before, row = row, following
    return row[-1]
