"""Tokens: one prompt, several continuations as one batch, a step at a time, through the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neural.diagnostics.diagnostic import fail
from neural.generation.cache import KVCache
from neural.generation.sampling import SamplingOptions, row_generators, sample

PREFILL_CHUNK = 256  # tokens a forward pass: bounds the logits, B * 256 * V * 4 bytes


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout, and afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def kept_tokens(context: int) -> int:
    """How many of the newest tokens stay when the window of `context` tokens is full: three quarters of it.

    Positions are bound to the cached keys, so what stays is read again, from position 0. Keeping 3/4 costs three
    tokens of prefill for each token written past the context, which take a fraction of the time of that one.
    """
    return max(1, context * 3 // 4)


class BatchDecoder:
    """Continues a prompt in `num_samples` ways at once.

    prompt: 1 to `context` token ids. Sample i draws from its own generator, of (options.seed, i). `vocab_size` is the
    tokenizer's: ids that it does not know, as in a vocabulary padded to a round width, are never drawn.
    The prompt is read once, for all samples; each `step` then feeds one token a sample.

    Raises NeuralError N907 and N908 for logits that cannot be drawn from, N917 for a model whose vocabulary is smaller
    than the tokenizer's; IndexError, from the embedding, for a prompt with ids that the model lacks. The commands
    cannot meet the last two: a run binds its tokenizer to its model.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: nn.Module,
        prompt: Sequence[int],
        options: SamplingOptions,
        *,
        context: int,
        num_samples: int,
        vocab_size: int,
    ) -> None:
        self._model, self._options, self._context, self._vocab_size = model, options, context, vocab_size
        self._cache = KVCache(context)
        self._generators = row_generators(options.seed, num_samples)
        device = next(model.parameters()).device
        ids = torch.tensor([list(prompt)], dtype=torch.int64, device=device)  # (1, T)
        self._window = torch.zeros(1, context, dtype=torch.int64, device=device)  # the tokens that the cache holds
        logits = self._read(ids)
        self._seen = torch.zeros(1, vocab_size, dtype=torch.bool, device=device)
        self._seen[:, ids[0]] = True
        self._keep(torch.zeros(num_samples, dtype=torch.int64, device=device))
        self._logits = logits.expand(num_samples, -1)
        self._newest: Tensor | None = None  # (B, 1), drawn and not yet read

    @torch.inference_mode()
    def step(self) -> list[int]:
        """Draw the next token of each sample that is left, in order."""
        if self._newest is not None:
            self._logits = self._read(self._make_room(self._newest))
        ids = sample(self._logits, self._options, self._generators, self._seen)
        self._newest = ids[:, None]
        self._seen.scatter_(1, self._newest, True)
        return ids.tolist()

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the batch only."""
        index = torch.tensor(rows, dtype=torch.int64, device=self._window.device)
        self._keep(index)
        self._generators = [self._generators[row] for row in rows]
        self._newest = self._newest[index] if self._newest is not None else None
        self._logits = self._logits[index]

    def _keep(self, index: Tensor) -> None:
        self._cache.select(index)
        self._window, self._seen = self._window[index], self._seen[index]

    def _make_room(self, newest: Tensor) -> Tensor:
        """What to read next: the newest tokens (B, 1), with those before them where the window was full."""
        if self._cache.length < self._context:
            return newest
        self._cache.reset()
        first = self._context - kept_tokens(self._context) + 1
        return torch.cat([self._window[:, first:], newest], dim=1)

    @torch.inference_mode()
    def _read(self, ids: Tensor) -> Tensor:
        """Append ids (B, T) to the window and the cache; the logits (B, V) after the last."""
        start = self._cache.length
        self._window[:, start : start + ids.shape[1]] = ids
        for chunk in ids.split(PREFILL_CHUNK, dim=1):
            logits, _ = self._model(chunk, past_key_values=self._cache)
        width = logits.shape[-1]
        if width < self._vocab_size:
            fail(
                "N917",
                f"the model knows {width} tokens, and the tokenizer gives ids up to {self._vocab_size - 1}",
                hint="use the tokenizer that the model was trained with",
            )
        return logits[:, -1, : self._vocab_size]
