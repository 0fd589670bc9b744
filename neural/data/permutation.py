"""A shuffled order of any length, one place at a time."""

from __future__ import annotations

import numpy as np

KEYS = 6
"""Rounds. Four suffice for a pseudo-random permutation (Luby & Rackoff 1988); two more cost little."""


def permuted(places: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Where each place of [0, size) goes: a permutation that `keys` (uint64, KEYS of them) pick.

    A Feistel network over the next power of four, walked until it lands inside (Black & Rogaway 2002). It needs no
    memory, where a shuffled list of a hundred million windows takes 400 MB, and it is integer arithmetic alone, so
    that a run resumed under another NumPy goes on in the same order. places: int64 of any shape; so is the result.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    found = places.astype(np.uint64)
    outside = np.ones(found.shape, dtype=bool)
    while outside.any():
        found[outside] = _feistel(found[outside], half, keys)
        outside = found >= size
    return found.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of the numbers of 2 * half bits."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return left << bits | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
