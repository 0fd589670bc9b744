"""The generated source run by PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neural.diagnostics.diagnostic import fail
from neural.generation.cache import KVCache
from neural.generation.prefixes import PrefixCache, fill, shared_length
from neural.generation.request import Limits
from neural.generation.rows import RowCache


class TorchExecutor:
    """See neural.generation.executor.

    model: in evaluation mode; follows the protocol of the generated source, `logits, cache = model(ids,
    past_key_values=cache, position_ids=…)`; one that takes `logits_to_keep` reads prompts faster.

    NeuralError N917 from `read` and `decode` of a model that knows fewer tokens than `vocab_size`.
    """

    def __init__(self, model: nn.Module, limits: Limits | None = None, *, context: int, vocab_size: int) -> None:
        self.context, self.vocab_size, self.limits = context, vocab_size, limits or Limits()
        self.device = next(model.parameters()).device
        self._model = model
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if keeps else {}  # of a prompt no other logits are wanted
        self._prompt = KVCache(context)
        self._prompt_ids: list[int] = []  # what `_prompt` holds
        self._prompt_logits: Tensor | None = None  # (V,), after its last token
        self.most_tokens = self.limits.cache_tokens or self.limits.slots * context
        self._rows = RowCache(self.limits.slots, context, self.most_tokens, self.device)
        self._prefixes = PrefixCache(self.limits.prefix_bytes)

    def reserve(self, rows: int, tokens: int) -> None:
        self._rows.reserve(rows, min(tokens, self.context))

    def begin(self, ids: Sequence[int]) -> int:
        if self._prompt_logits is not None and self._prompt_ids == list(ids):
            return len(ids)
        common = shared_length(self._prompt_ids, ids[:-1])
        blocks = self._prefixes.find(ids)
        known = sum(block.layers[0][0].shape[2] for block in blocks)
        if known > common:
            self._prompt.reset()
            fill(self._prompt, blocks)
        else:
            self._prompt.truncate(known := common)
        self._prompt_ids, self._prompt_logits = list(ids[:known]), None
        return known

    def read(self, ids: Sequence[int]) -> None:
        try:
            logits, _ = self._model(self._tensor([ids]), past_key_values=self._prompt, **self._last_only)
        except BaseException:
            self._prompt.reset()  # it may hold the tokens in some layers only
            self._prompt_ids, self._prompt_logits = [], None
            raise
        self._prompt_ids += ids
        self._prompt_logits = self._known(logits)[0, -1].clone()  # the rest of the logits is let go

    def join(self) -> Tensor:
        self._prefixes.store(self._prompt_ids, self._prompt.views())
        self._rows.join(self._prompt)
        return self._prompt_logits

    def leave(self, row: int, ids: Sequence[int]) -> None:
        self._prefixes.store(ids[: self._rows.lengths[row]], self._rows.views(row))
        self._rows.leave(row)

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        positions = self._rows.positions(len(ids[0]))
        given = {} if positions is None else {"position_ids": positions}
        logits, _ = self._model(self._tensor(ids), past_key_values=self._rows, **given)
        return self._known(logits)

    def commit(self, counts: Sequence[int]) -> None:
        self._rows.commit(counts)

    def select(self, rows: Sequence[int]) -> None:
        self._rows.select(rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._prefixes.nbytes

    def _tensor(self, ids: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self.device)

    def _known(self, logits: Tensor) -> Tensor:
        width = logits.shape[-1]
        if width < self.vocab_size:
            fail(
                "N917",
                f"the model knows {width} tokens, and the tokenizer gives ids up to {self.vocab_size - 1}",
                hint="use the tokenizer that the model was trained with",
            )
        return logits[..., : self.vocab_size]
