"""PyTorch in float64, beside which the rounding of float32 is seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from neural.compiler import Program
from neural.verification import torch_peer


class Peer:
    """See neural.verification.peer."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        with _float64():
            self._peer = torch_peer.Peer(program, weights)

    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        with _float64():
            return self._peer.logits([_wide(x) for x in inputs], attention_mask)

    def gradients(self, inputs: list[np.ndarray], targets: np.ndarray) -> dict[str, np.ndarray]:
        with _float64():
            return self._peer.gradients([_wide(x) for x in inputs], _wide(targets))


@contextmanager
def _float64() -> Iterator[None]:
    """Of weights that are made, and of what the source makes on its way."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array
