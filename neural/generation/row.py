"""One request while it is being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neural.generation.constraint import Progress
from neural.generation.filters import completing
from neural.generation.options import SamplingOptions
from neural.generation.request import FinishReason, Request
from neural.generation.sampling import Past, row_generator

GREEDY = SamplingOptions(temperature=0)


def kept_tokens(context: int) -> int:
    """How many of the newest tokens stay when the window of `context` tokens is full: three quarters of it.

    Positions are bound to the cached keys, so what stays is read again, from position 0. Keeping 3/4 costs three
    tokens of prefill for each token written past the context, which take a fraction of the time of that one.
    """
    return max(1, context * 3 // 4)


class Row:
    """A request, the text so far, and what its next token depends on.

    ids: prompt and text. first: where the window begins that the model reads. read: how many tokens of the window the
    model has read, as far as they are part of the text.
    """

    def __init__(self, handle: int, request: Request) -> None:
        self.handle, self.request = handle, request
        self.ids = list(request.prompt)
        self.first, self.read = 0, 0
        self.manner = replace(request.options, seed=0)  # rows of one manner are sampled together
        self.generator = row_generator(request.options.seed, request.sample)
        options = request.options
        plain = replace(GREEDY, seed=options.seed, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p)
        self._plain = options == plain and request.logprobs is None and request.constraint is None
        self._seen: np.ndarray | None = None  # bool (V,)
        self._counts: np.ndarray | None = None  # float32 (V,)
        self._progress: Progress | None = None

    @property
    def written(self) -> int:
        return len(self.ids) - len(self.request.prompt)

    @property
    def length(self) -> int:
        """Of the window."""
        return len(self.ids) - self.first

    @property
    def window(self) -> list[int]:
        return self.ids[self.first :] if self.first else self.ids

    @property
    def takes_largest(self) -> bool:
        """Whether its next token is that of the largest logit, whatever the text is, and nothing else is told of it."""
        return self._plain and not (self.request.ends and self.written < self.request.min_new_tokens)

    def slide(self, context: int) -> None:
        """Begin the window anew with the newest tokens, which are then to be read."""
        self.first, self.read = len(self.ids) - kept_tokens(context), 0

    def start(self, vocab_size: int) -> None:
        """Set up what the penalties and the constraint need."""
        if self.manner.repetition_penalty != 1:
            self._seen = np.zeros(vocab_size, bool)
            self._seen[self.ids] = True
        if self.manner.frequency_penalty or self.manner.presence_penalty:
            self._counts = np.zeros(vocab_size, np.float32)
        if self.request.constraint is not None:
            self._progress = self.request.constraint.begin()

    def push(self, token: int) -> FinishReason | None:
        """Add a token; why the text ends with it, if it does. NeuralError N983 where a constraint cannot be met."""
        self.ids.append(token)
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1
        if token in self.request.ends:
            return FinishReason.END_OF_TEXT
        if self._progress is not None:
            self._progress.push(token)
            if self._progress.over:
                return FinishReason.STOP
        return FinishReason.LENGTH if self.written == self.request.max_new_tokens else None

    def banned(self) -> list[int]:
        """Tokens that must not come next."""
        early = self.request.ends if self.written < self.request.min_new_tokens else ()
        return [*early, *completing(self.manner.bad_words, self.ids[len(self.request.prompt) :])]

    @staticmethod
    def past(rows: Sequence[Row]) -> Past:
        """What sampling needs to know of rows of one manner."""
        banned = [row.banned() for row in rows]
        return Past(
            seen=None if rows[0]._seen is None else [row._seen for row in rows],
            counts=None if rows[0]._counts is None else [row._counts for row in rows],
            banned=banned if any(banned) else None,
            permitted=_permitted(rows),
        )


def _permitted(rows: list[Row]) -> np.ndarray | None:
    """bool (B, V), the tokens that constraints permit; None where no row has one."""
    found = [row._progress and row._progress.permitted(row.request.ends) for row in rows]
    known = next((permitted for permitted in found if permitted is not None), None)
    if known is None:
        return None
    return np.stack([np.ones_like(known) if permitted is None else permitted for permitted in found])
