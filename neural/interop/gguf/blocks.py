"""Numbers that are whole multiples of a scale, in the types of GGUF that hold them exactly: Q4_0 and Q8_0.

Both have blocks of 32 numbers of a row and a scale in half precision before each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural.interop.decoder import BLOCK, Steps

if TYPE_CHECKING:
    import numpy
    from gguf import GGMLQuantizationType

    Array = numpy.ndarray

MOSTLY = {8: 7, 4: 2}  # general.file_type: MOSTLY_Q8_0, MOSTLY_Q4_0
OFFSET = 8  # of Q4_0: what is added to an integer


def kind(parts: Sequence[Steps | None]) -> GGMLQuantizationType | None:
    """The type for a tensor of such rows, one part after another; None where a part has no steps or other ones."""
    from gguf import GGMLQuantizationType

    bits = {part and part.bits for part in parts}
    if len(bits) != 1:
        return None
    return {8: GGMLQuantizationType.Q8_0, 4: GGMLQuantizationType.Q4_0, None: None}[bits.pop()]


def encoded(numbers: Array, steps: Steps) -> Array:
    """Float32 (N, K) as blocks, uint8 (N, bytes of a row)."""
    import numpy as np

    rows, columns = numbers.shape
    scales = steps.scales.astype(np.float32)
    divisors = np.where(scales == 0, np.float32(1), scales)[..., None]
    integers = np.rint(numbers.reshape(rows, columns // BLOCK, BLOCK) / divisors)
    if steps.bits == 4:
        raised = (integers + OFFSET).astype(np.uint8)  # the first half of a block in the low halves of its bytes
        integers = raised[..., : BLOCK // 2] | raised[..., BLOCK // 2 :] << 4
    values = integers if steps.bits == 4 else integers.astype(np.int8).view(np.uint8)
    heads = np.ascontiguousarray(steps.scales)[..., None].view(np.uint8)
    return np.concatenate([heads, values], axis=-1).reshape(rows, -1)
