"""The one form of a quantised matrix: small integers and a scale a group, as files, kernels and ONNX graphs hold them.

int8: an integer from -127 to 127 a number, one float32 scale a row. int4: an integer from -8 to 7 a number, two a byte,
one float16 scale for 32 (or 64) numbers of a row. Both are symmetric: a number is its integer times its scale, so that
0 is exact. Scales may be negative: that gives -8 to the extreme of a group whatever its sign. A row of K numbers takes
K + 4 bytes in int8, and K/2 + K/16 in int4 with groups of 32.

int4 may have zero points: a byte a group says, in sixteenths of a step, where 0 lies on the steps from 0 to 15. Groups
that lean to one side use all their steps then, and numbers that were in 4 bits with a minimum before (Q4_1 of GGUF)
are met within a 32nd of a step, which whole zero points would miss by half of one. That takes K/32 bytes more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

GROUP = 32  # of int4, unless said otherwise
GROUPS = (32, 64)
BITS = {"int8": 8, "int4": 4}
ZERO = 8  # the step from 0 to 15 that is 0 where there are no zero points
FRACTION = 16  # of a step, what zero points are counted in
ROWS = 2048  # at a time, where a whole float32 copy of a matrix would be wanted


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix (N, K) in PyTorch's layout: N outputs of a product, or N rows of a table, each of K numbers.

    bits 8: values int8 (N, K), scales float32 (N,), group = K. bits 4: values uint8 (N, K // 2), of which the low half
    of a byte is the even column and the high half the odd one after it, each the integer plus ZERO; scales float16
    (N, K // group), K a multiple of group. zeros: uint8 (N, K // group) of 4 bits, or None. A number is then
    (integer + ZERO - zero / FRACTION) * scale, which float32 holds exactly.
    """

    bits: int
    group: int
    values: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, width = self.values.shape
        return rows, width * 8 // self.bits

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    def integers(self, rows: slice = slice(None)) -> np.ndarray:
        """int8 (N, K), of some rows or all."""
        return self.values[rows] if self.bits == 8 else unpacked(self.values[rows])

    def dequantized(self, rows: slice = slice(None)) -> np.ndarray:
        """float32 (N, K), of some rows or all."""
        integers, scales = self.integers(rows), self.scales[rows].astype(np.float32)
        count = len(integers)
        steps = integers.reshape(count, -1, self.group)
        if self.zeros is not None:
            steps = steps + offsets(self.zeros[rows])[..., None]
        return (steps * scales.reshape(count, -1, 1)).reshape(count, -1)

    def to_tensors(self, name: str) -> dict[str, np.ndarray]:
        """For a safetensors file: "<name>.int8" or "<name>.int4", "<name>.scales", and "<name>.zeros" if it has any."""
        zeros = {} if self.zeros is None else {f"{name}.zeros": self.zeros}
        return {f"{name}.int{self.bits}": self.values, f"{name}.scales": self.scales, **zeros}

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, np.ndarray]) -> Self:
        """What `to_tensors` wrote. ValueError where the arrays do not fit each other; KeyError where one is missing."""
        bits = 8 if f"{name}.int8" in tensors else 4
        values, scales = tensors[f"{name}.int{bits}"], tensors[f"{name}.scales"]
        columns = values.shape[-1] * 8 // bits
        group = columns if bits == 8 else columns // max(1, scales.shape[-1])
        made = cls(bits, group, values, scales, tensors.get(f"{name}.zeros"))
        made.require_sound(name)
        return made

    def require_sound(self, name: str) -> None:
        """ValueError unless shapes and types are those of the class."""
        values, scales = (np.int8, np.float32) if self.bits == 8 else (np.uint8, np.float16)
        found = f"{self.values.dtype} {self.values.shape}, scales {self.scales.dtype} {self.scales.shape}"
        if self.values.dtype != values or self.scales.dtype != scales or self.values.ndim != 2:
            raise ValueError(f"`{name}` is no matrix of int{self.bits}: {found}")
        rows, columns = self.shape
        expected = (rows,) if self.bits == 8 else (rows, columns // self.group)
        whole = self.bits == 8 or (self.group in GROUPS and columns % self.group == 0)
        if self.scales.shape != expected or not whole:
            raise ValueError(f"the scales of `{name}` do not fit it: {found}")
        zeros = self.zeros
        if zeros is not None and (self.bits == 8 or zeros.dtype != np.uint8 or zeros.shape != expected):
            raise ValueError(f"the zero points of `{name}` do not fit it: {found}, zeros {zeros.dtype} {zeros.shape}")


def offsets(zeros: np.ndarray) -> np.ndarray:
    """What zero points, uint8, add to the integers of their groups, float32: exact."""
    return ZERO - zeros.astype(np.float32) / FRACTION


def packed(integers: np.ndarray) -> np.ndarray:
    """int8 (N, K) from -8 to 7 as uint8 (N, K // 2)."""
    raised = (integers + 8).astype(np.uint8)
    return raised[:, 0::2] | raised[:, 1::2] << 4


def unpacked(values: np.ndarray) -> np.ndarray:
    """uint8 (N, K // 2) as int8 (N, K) from -8 to 7."""
    integers = np.empty((len(values), 2 * values.shape[1]), np.int8)
    integers[:, 0::2] = (values & 15).view(np.int8) - 8
    integers[:, 1::2] = (values >> 4).view(np.int8) - 8
    return integers


def bits_for(columns: int, bits: int, group: int = GROUP) -> int:
    """Of a matrix that is to have `bits`: 8 where its rows are not whole groups of 4-bit numbers."""
    return 8 if bits == 4 and columns % group else bits


def size(shape: tuple[int, int], bits: int, group: int = GROUP, *, zeros: bool = False) -> int:
    """Bytes of a matrix (N, K) with its scales, once it is quantised. zeros: with zero points, if it is of 4 bits."""
    rows, columns = shape
    if bits_for(columns, bits, group) == 8:
        return rows * (columns + 4)
    return rows * (columns // 2 + (3 if zeros else 2) * columns // group)
