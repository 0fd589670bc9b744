"""Which name was meant."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural.diagnostics.near import nearest

LAYERS = ["Dense", "Dropout", "Embedding", "LayerNormalization", "RMSNormalization", "Attention", "MultiHeadAttention"]


def slips(a: str, b: str) -> int:
    """Optimal string alignment distance, by its definition."""

    @cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        found = [between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (a[i - 1] != b[j - 1])]
        if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
            found.append(between(i - 2, j - 2) + 1)
        return min(found)

    return between(len(a), len(b))


@pytest.mark.parametrize(
    ("written", "candidates", "meant"),
    [
        ("Desne", LAYERS, "Dense"),
        ("dense", LAYERS, "Dense"),
        ("DENSE", LAYERS, "Dense"),
        ("Dens", LAYERS, "Dense"),
        ("LayerNormalisation", LAYERS, "LayerNormalization"),
        ("LayerNorm", LAYERS, None),
        ("Conv9000", LAYERS, None),
        ("x", ["y", "z"], None),
        ("ab", ["ba"], "ba"),
        ("units", ["unit", "unite"], "unit"),
        ("rate", ["bate", "rats"], "rats"),
        ("rate", ["rate"], None),
        ("", LAYERS, None),
        ("rate", [], None),
        ("rate", [""], None),
        ("networc", iter(["network"]), "network"),
    ],
)
def test_nearest(written: str, candidates, meant: str | None) -> None:
    assert nearest(written, candidates) == meant


short = st.text("abcAB", min_size=1, max_size=9)


@given(short, st.lists(short, max_size=6))
def test_nothing_nearer_is_passed_over(written: str, candidates: list[str]) -> None:
    near = nearest(written, candidates)
    limit = min(4, max(1, len(written) // 3))
    distances = {c: slips(written.lower(), c.lower()) for c in candidates if c != written}
    close = {c: d for c, d in distances.items() if d <= limit and d < max(len(c), len(written))}
    assert (near is None) == (not close)
    assert near is None or close[near] == min(close.values())


def test_very_long_names_cost_nothing() -> None:
    assert nearest("a" * 10**7, ["a" * 10**7 + "b"] * 1000) is None
    assert nearest("a" * 60, ["b" * 10**7] * 1000) is None
