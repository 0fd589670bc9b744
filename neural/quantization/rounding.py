"""Rounding to the nearest: what can be done to a matrix without data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neural.quantization.matrix import FRACTION, GROUP, ROWS, QuantizedMatrix, bits_for, offsets, packed

LARGEST_SCALE = float(np.finfo(np.float16).max)
LEAST_SCALE = float(np.finfo(np.float16).tiny)  # below it float16 is coarse
# What the number of a group that is farthest from 0 may become, -8 being the end: beyond it numbers are clipped, which
# costs little for few of them and makes the steps of all others finer. Positive: the end is 7, on the other side.
EXTREMES = (-8.0, -8.7, -9.4, -8.35, -7.65, -7.3, 7.0, 7.35, 7.7, 8.1)
SPANS = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)  # the same where there are zero points: how much of a group its steps cover
LOWEST, HIGHEST = {8: -127, 4: -8}, {8: 127, 4: 7}


class Steps(NamedTuple):
    """Of the N columns of a group: the integer i stands for (i + offset) * scale. Both float32 (N,), as they will be
    stored. zeros: uint8 (N,), what the offsets are made of, or None where they are 0.
    """

    scales: np.ndarray
    zeros: np.ndarray | None = None

    @property
    def offsets(self) -> np.ndarray | float:
        return 0.0 if self.zeros is None else offsets(self.zeros)


class Part(NamedTuple):
    """Some rows of a matrix, turned: int8 (K, rows), float32 (K // group, rows), uint8 of that shape or None."""

    integers: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def round_to_nearest(matrix: np.ndarray, bits: int, group: int = GROUP, *, zeros: bool = False) -> QuantizedMatrix:
    """A float32 (N, K), each number as the nearest of its group's steps. bits: 8 or 4; as `bits_for` says, 8 for 4.

    zeros: with zero points, if it is of 4 bits.
    """
    bits = bits_for(matrix.shape[1], bits, group)
    group = matrix.shape[1] if bits == 8 else group
    parts = [_rows(matrix[i : i + ROWS], bits, group, zeros) for i in range(0, len(matrix), ROWS)]
    return assembled(bits, group, parts)


def _rows(rows: np.ndarray, bits: int, group: int, zeros: bool) -> Part:
    columns = np.array(rows.T, np.float32, order="C")
    steps = best_steps(columns, bits, group, zeros)
    integers = [nearest(columns[i * group : (i + 1) * group], s, bits) for i, s in enumerate(steps)]
    return part(np.concatenate(integers).astype(np.int8), steps)


def part(integers: np.ndarray, steps: list[Steps]) -> Part:
    """From integers, int8 (K, rows), and the steps of each group."""
    zeros = None if steps[0].zeros is None else np.stack([s.zeros for s in steps])
    return Part(integers, np.stack([s.scales for s in steps]), zeros)


def assembled(bits: int, group: int, parts: list[Part]) -> QuantizedMatrix:
    """One stretch of rows after another."""
    integers = np.concatenate([p.integers.T for p in parts])
    scales = np.concatenate([p.scales.T for p in parts])
    if bits == 8:
        return QuantizedMatrix(8, group, integers, scales[:, 0])
    zeros = None if parts[0].zeros is None else np.concatenate([p.zeros.T for p in parts])
    return QuantizedMatrix(4, group, packed(integers), scales.astype(np.float16), zeros)


def best_steps(columns: np.ndarray, bits: int, group: int, zeros: bool) -> list[Steps]:
    """Of each group of a turned matrix, float32 (K, N). zeros: with zero points, if it is of 4 bits.

    int8: what makes the farthest number 127, or less by a thousandth. int4: of the steps that are tried the ones with
    the least squared error.
    """
    tried = _by_farthest if bits == 8 else _by_span if zeros else _by_extreme
    return [_best(columns[i : i + group], bits, tried(columns[i : i + group])) for i in range(0, len(columns), group)]


def _by_farthest(columns: np.ndarray) -> list[Steps]:
    scales = np.abs(columns).max(axis=0) / np.float32(127)
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    # A little wider where that is a number of half precision, in which files of others keep scales
    wider = np.where(halves < scales, np.nextafter(halves, np.float16(np.inf)), halves)
    return [Steps(np.where((wider >= LEAST_SCALE) & (wider <= LARGEST_SCALE), wider.astype(np.float32), scales))]


def _by_extreme(columns: np.ndarray) -> list[Steps]:
    low, high = columns.min(axis=0), columns.max(axis=0)
    extremes = np.where(-low > high, low, high)
    return [Steps(_as_float16(extremes / np.float32(end))) for end in EXTREMES]


def _by_span(columns: np.ndarray) -> list[Steps]:
    low, high = np.minimum(columns.min(axis=0), 0), np.maximum(columns.max(axis=0), 0)  # 0 must lie on the steps
    middles, halves, found = high / 2 + low / 2, high / 2 - low / 2, []
    for span in SPANS:
        scales = _as_float16(np.float32(2 * span / 15) * halves)
        zeros = (np.float32(span) * halves - middles) * FRACTION / np.where(scales == 0, np.float32(1), scales)
        found.append(Steps(scales, np.clip(np.rint(zeros), 0, 255).astype(np.uint8)))
    return found


def _best(columns: np.ndarray, bits: int, tried: list[Steps]) -> Steps:
    """Of the steps for the columns of a group, (G, N), for each column those with the least squared error."""
    best = tried[0]
    if len(tried) == 1:
        return best
    least = _error(columns, best, bits)
    for steps in tried[1:]:
        error = _error(columns, steps, bits)
        better = error < least
        least = np.where(better, error, least)
        zeros = None if steps.zeros is None else np.where(better, steps.zeros, best.zeros)
        best = Steps(np.where(better, steps.scales, best.scales), zeros)
    return best


def _error(columns: np.ndarray, steps: Steps, bits: int) -> np.ndarray:
    return np.square((nearest(columns, steps, bits) + steps.offsets) * steps.scales - columns).sum(axis=0)


def _as_float16(scales: np.ndarray) -> np.ndarray:
    """float32 as float16 has it; those that it cannot hold become its largest."""
    return np.clip(scales, -LARGEST_SCALE, LARGEST_SCALE).astype(np.float16).astype(np.float32)


def nearest(columns: np.ndarray, steps: Steps, bits: int) -> np.ndarray:
    """The integers, as float32 (G, N) or (N,), that come nearest to the numbers on their steps."""
    # a group of zeros, or of what float16 takes for it, has the scale 0
    numbers = columns / np.where(steps.scales == 0, np.float32(1), steps.scales) - steps.offsets
    return np.clip(np.rint(numbers, out=numbers), LOWEST[bits], HIGHEST[bits], out=numbers)
