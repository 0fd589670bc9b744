"""The ONNX graph that we emit, run by a runtime: rows end at one place, and begin where their lengths say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from neural.backends.onnx import emit
from neural.generation.prefixes import PrefixCache, shared_length
from neural.generation.request import Limits
from neural.generation.rows import Views
from neural.graph.passes import optimize
from neural.quantization.quantize import round_all
from neural.training.trained import Trained

GIVEN = ("input_ids", "attention_mask", "position_ids", "logits_to_keep")  # of which a model takes what it needs


class Session(Protocol):
    """A causal network, and the keys and values of a batch of texts.

    past: of each layer keys, then values, (B, n_kv_heads, S, head_dim) float32; B and S are 0 at first.
    """

    past: list[np.ndarray]

    def run(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, kept: int) -> np.ndarray:
        """Read ids (B, T), int64 as are mask (B, S + T) and positions (B, T), and add them to the past: the logits
        (B, kept or T, V) float32, those of the last `kept` tokens at least. Where the past is of no rows, these are its
        first.
        """


class OnnxExecutor:
    """See neural.generation.executor.

    open_session: gives sessions that share their weights; one holds a prompt, one the batch. Row i of the batch stands
    in the last `lengths[i]` of the S slots that all rows have, so that each step adds one slot to all of them.
    """

    def __init__(self, open_session: Callable[[], Session], limits: Limits, *, context: int, vocab_size: int) -> None:
        self.context, self.vocab_size, self.limits = context, vocab_size, limits
        self.device = torch.device("cpu")
        self.most_tokens = limits.cache_tokens or limits.slots * context
        self._prompt, self._batch = open_session(), open_session()
        self._empty = self._prompt.past
        self._prompt_ids: list[int] = []
        self._prompt_logits: Tensor | None = None  # (V,), after its last token
        self._prefixes = PrefixCache(limits.prefix_bytes)
        self._lengths: list[int] = []
        self._joined: list[list[np.ndarray]] = []  # pasts of the last rows, which are not in the batch's session yet
        self._written = 0  # slots that the last step added, and no commit has confirmed

    def reserve(self, rows: int, tokens: int) -> None:
        """Nothing: these runtimes make room step by step."""

    def begin(self, ids: Sequence[int]) -> int:
        if self._prompt_logits is not None and self._prompt_ids == list(ids):
            return len(ids)
        known = shared_length(self._prompt_ids, ids[:-1])
        blocks = self._prefixes.find(ids)
        found = sum(block.layers[0][0].shape[2] for block in blocks)
        if found > known:
            layers = range(len(self._empty) // 2)
            parts = ([block.layers[n][i].numpy() for block in blocks] for n in layers for i in (0, 1))
            self._prompt.past = [np.concatenate(part, axis=2) for part in parts]
        elif known < len(self._prompt_ids):
            self._prompt.past = [part[:, :, :known] for part in self._prompt.past] if known else self._empty
        known = max(found, known)
        self._prompt_ids, self._prompt_logits = list(ids[:known]), None
        return known

    def read(self, ids: Sequence[int]) -> None:
        known, end = len(self._prompt_ids), len(self._prompt_ids) + len(ids)
        try:
            logits = self._prompt.run(np.array([ids]), np.ones((1, end), np.int64), np.arange(known, end)[None], 1)
        except BaseException:
            self._prompt.past, self._prompt_ids, self._prompt_logits = self._empty, [], None
            raise
        self._prompt_ids += ids
        self._prompt_logits = torch.from_numpy(logits[0, -1, : self.vocab_size].copy())

    def join(self) -> Tensor:
        past = self._prompt.past
        self._prefixes.store(self._prompt_ids, _views(past))
        self._joined.append(past)
        self._lengths.append(len(self._prompt_ids))
        return self._prompt_logits

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        self._settle()
        lengths, width = np.array(self._lengths)[:, None], len(ids[0])
        slots = int(lengths.max())
        mask = np.arange(slots + width) >= slots - lengths
        logits = self._batch.run(np.array(ids), mask.astype(np.int64), lengths + np.arange(width), width)
        self._written = width
        return torch.from_numpy(logits)[..., : self.vocab_size]

    def commit(self, counts: Sequence[int]) -> None:
        dropped = [self._written - count for count in counts[: len(counts) - len(self._joined)]]
        self._lengths = [length + count for length, count in zip(self._lengths, counts, strict=True)]
        self._written = 0
        if any(dropped):
            slots = max(self._lengths[: len(dropped)])
            self._batch.past = [_without_ends(part, dropped, slots) for part in self._batch.past]

    def leave(self, row: int, ids: Sequence[int]) -> None:
        self._settle()
        if self.limits.prefix_bytes:
            length = self._lengths[row]
            self._prefixes.store(ids[:length], _views([_ending(p[row : row + 1], length) for p in self._batch.past]))
        last = len(self._lengths) - 1
        self.select([last if kept == row else kept for kept in range(last)])

    def select(self, rows: Sequence[int]) -> None:
        self._settle()
        self._lengths = [self._lengths[row] for row in rows]
        slots = max(self._lengths, default=0)
        self._batch.past = [_ending(part[rows], slots) for part in self._batch.past] if rows else self._empty

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for past in (self._batch.past, *self._joined) for part in past) + self._prefixes.nbytes

    def _settle(self) -> None:
        """Put the rows that have joined into the batch's session."""
        if self._joined:
            slots, before = max(self._lengths), len(self._lengths) - len(self._joined)
            pasts = [self._batch.past, *self._joined] if before else self._joined
            parts = zip(*pasts, strict=True)
            self._batch.past = [np.concatenate([_ending(part, slots) for part in same]) for same in parts]
            self._joined = []


def _views(past: Sequence[np.ndarray]) -> Views:
    parts = [torch.from_numpy(part) for part in past]
    return dict(enumerate(zip(parts[::2], parts[1::2], strict=True)))


def _ending(part: np.ndarray, slots: int) -> np.ndarray:
    """The last slots of (B, heads, S, head_dim), filled up with zeros at the front where there are fewer."""
    lacking = slots - part.shape[2]
    return part[:, :, -lacking:] if lacking <= 0 else np.pad(part, ((0, 0), (0, 0), (lacking, 0), (0, 0)))


def _without_ends(part: np.ndarray, dropped: Sequence[int], slots: int) -> np.ndarray:
    """The last slots of (B, heads, S, head_dim) without the last `dropped[i]` of row i."""
    rows = [part[i : i + 1, :, : part.shape[2] - count] for i, count in enumerate(dropped)]
    return np.concatenate([_ending(row, slots) for row in rows])


def open_onnx(
    found: Trained, width: str | None, limits: Limits, sessions: Callable[[ir.Model], Callable[[], Session]]
) -> OnnxExecutor:
    """width: of the matrices, "int8" or "int4", rounded to the nearest; None for them as they are: float32, or the
    integers of a quantised run. sessions: gives what opens sessions of a model.
    """
    network = optimize(found.program.graph)
    quantized = found.quantized or (round_all(network.block, found.weights, width) if width else {})
    model = emit(network, found.weights, quantized, logits_to_keep=True)
    context, vocab_size = found.program.context, found.tokenizer.vocab_size
    return OnnxExecutor(sessions(model), limits, context=context, vocab_size=vocab_size)
