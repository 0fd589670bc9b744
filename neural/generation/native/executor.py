"""The C++ engine as an executor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neural.diagnostics.diagnostic import fail
from neural.generation.native.pages import PAGE, Pages, Text
from neural.generation.native.program import Program
from neural.generation.native.recording import Weights
from neural.generation.prefixes import shared_length
from neural.generation.request import Limits
from neural.graph.graph import Network

BYTES_A_THREAD = 4 << 20  # of weights: threads that read less wait for each other longer than they work


class NativeExecutor:
    """See neural.generation.executor. Logits are the same bits whatever the neighbours of a text, and however it was
    cut into calls.

    network: after `optimize`. weights: by the names of `graph.weights`. Raises what `Program` does, and NeuralError
    N917 for a model that knows fewer tokens than `vocab_size`.
    """

    device = torch.device("cpu")

    def __init__(
        self, network: Network, weights: Weights, limits: Limits | None = None, *, vocab_size: int,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.context, self.vocab_size, self.limits = network.context, vocab_size, limits or Limits()
        self.most_tokens = self.limits.cache_tokens or self.limits.slots * self.context
        size = sum(weight.nbytes for weight in weights.values())
        threads = threads or max(1, min(torch.get_num_threads(), size // BYTES_A_THREAD))
        self._program = Program(network, weights, threads=threads)
        if self._program.width < vocab_size:
            fail(
                "N917",
                f"the model knows {self._program.width} tokens, and the tokenizer gives ids up to {vocab_size - 1}",
                hint="use the tokenizer that the model was trained with",
            )
        self._pages, self._page_bytes = self._make_pages()
        self._prompt = self._text()
        self._prompt_ids: list[int] = []
        self._prompt_logits: Tensor | None = None
        self._rows: list[Text] = []
        self._logits = np.empty((0, self._program.width), np.float32)

    def _make_pages(self) -> tuple[Pages, int]:
        """For all rows, each with a page that is not full; for the prompt; and for what is kept."""
        needed = -(-self.most_tokens // PAGE) + 2 * self.limits.slots + -(-self.context // PAGE) + 1
        size = self._program.page_bytes
        kept = self.limits.prefix_bytes // size
        self._program.make_pages(needed + kept)
        return Pages(needed + kept, kept), size

    def _text(self) -> Text:
        return Text(self._pages, self._program.copy_page, self.context)

    def reserve(self, rows: int, tokens: int) -> None:
        """Nothing to do: the pages for `most_tokens` are there, and take memory when they are written."""

    def begin(self, ids: Sequence[int]) -> int:
        if self._prompt_logits is not None and self._prompt_ids == list(ids):
            return len(ids)
        common = shared_length(self._prompt_ids, ids[:-1])
        pages = self._pages.find(ids)
        if len(pages) * PAGE > common:
            self._prompt.hold(pages, common := len(pages) * PAGE)
        else:
            self._prompt.truncate(common)
        self._prompt_ids, self._prompt_logits = list(ids[:common]), None
        return common

    def read(self, ids: Sequence[int]) -> None:
        text = self._prompt
        text.make_room(len(ids))
        places = range(text.length, text.length + len(ids))
        try:
            logits = self._program.run(ids, places, [text.address] * len(ids), [len(ids) - 1])
        except BaseException:
            text.truncate(0)
            self._prompt_ids, self._prompt_logits = [], None
            raise
        text.length += len(ids)
        self._prompt_ids += ids
        self._prompt_logits = torch.from_numpy(logits[0, : self.vocab_size])

    def join(self) -> Tensor:
        self._pages.publish(self._prompt_ids, self._prompt.held)
        row = self._text()
        row.hold(self._prompt.held, self._prompt.length)
        self._rows.append(row)
        return self._prompt_logits

    def decode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        width = len(ids[0])
        for row in self._rows:
            row.make_room(width)
        places = [row.length + i for row in self._rows for i in range(width)]
        tables = [row.address for row in self._rows for _ in range(width)]
        if len(self._logits) < len(places):  # new memory for each step would cost more than a layer
            self._logits = np.empty((len(places), self._program.width), np.float32)
        tokens = [token for of_row in ids for token in of_row]
        logits = self._program.run(tokens, places, tables, range(len(places)), self._logits[: len(places)])
        return torch.from_numpy(logits).view(len(ids), width, -1)[..., : self.vocab_size]

    def commit(self, counts: Sequence[int]) -> None:
        for row, count in zip(self._rows, counts, strict=True):
            row.length += count

    def leave(self, row: int, ids: Sequence[int]) -> None:
        text, last = self._rows[row], self._rows.pop()
        if text is not last:
            self._rows[row] = last
        self._pages.publish(ids[: text.length], text.held)
        text.truncate(0)

    def select(self, rows: Sequence[int]) -> None:
        chosen = []
        for row in rows:
            text = self._text()
            text.hold(self._rows[row].held, self._rows[row].length)
            chosen.append(text)
        for text in self._rows:
            text.truncate(0)
        self._rows = chosen

    @property
    def nbytes(self) -> int:
        of_prompt = sum(self._pages.holders(page) == 1 for page in self._prompt.held)  # and of no one else
        return (self._pages.used - of_prompt) * self._page_bytes
