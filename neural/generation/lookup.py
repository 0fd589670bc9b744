"""Prompt look-up: a guess at the next tokens, what followed when the text said the same before (Saxena 2023)."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2  # tokens that must agree


def look_up(ids: Sequence[int], most: int) -> list[int]:
    """Up to `most` tokens that followed the latest earlier occurrence of the text's last tokens, or none."""
    for size in range(LONGEST, SHORTEST - 1, -1):
        tail = list(ids[-size:])
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start] == tail[0] and list(ids[start : start + size]) == tail:
                return list(ids[start + size : start + size + most])
    return []
