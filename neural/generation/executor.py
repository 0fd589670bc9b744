"""What runs a model for the engine: tokens in, logits out, the past kept between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from neural.generation.request import Limits


class Executor(Protocol):
    """A prompt is read by itself (`begin`, `read`), then joins the batch, in which each row goes on (`decode`).

    A row of the batch holds the tokens of one text, and rows may be of unequal lengths. Logits are given as tensors on
    `device`, float, for the first `vocab_size` ids: those of the tokenizer, and not of a vocabulary that was padded to
    a round width. They are the receiver's until the next call. The logits of a text do not depend on its neighbours,
    nor on how it was cut into calls, but for the rounding of sums. Callers are in `torch.inference_mode()`.

    context: the longest text. limits: what it was opened for. most_tokens: a bound on rows times their longest.
    """

    context: int
    vocab_size: int
    limits: Limits
    most_tokens: int
    device: torch.device

    def reserve(self, rows: int, tokens: int) -> None:
        """Room for so many rows in the batch, each of up to so many tokens (or of `context`, if that is less)."""

    def begin(self, ids: Sequence[int]) -> int:
        """Start on a prompt: how many of its tokens are known from earlier ones. All of them where the last prompt
        was the same; else one at least is left to read.
        """

    def read(self, ids: Sequence[int]) -> None:
        """Read the prompt's next tokens. Where it fails, the prompt is forgotten, and the batch is as it was."""

    def join(self) -> Tensor:
        """Add the prompt, wholly read, to the batch as its last row; the logits (V,) after it. The prompt stays, so
        that it can join again.
        """

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Read the next tokens of each row, T of each: logits (B, T, V). `commit` must follow, after joins if any."""

    def commit(self, counts: Sequence[int]) -> None:
        """Keep the first `counts[i]` tokens of what row i has just read; 0 for a row that joined since."""

    def leave(self, row: int, ids: Sequence[int]) -> None:
        """Take a row, which holds the first of `ids`, out of the batch; the last row takes its number."""

    def select(self, rows: Sequence[int]) -> None:
        """Make the batch of its rows, all of one length: drops those that are not named, repeats those named twice."""

    @property
    def nbytes(self) -> int:
        """Memory of the batch's cache and of kept prefixes."""


Opener = Callable[[Limits], Executor]
