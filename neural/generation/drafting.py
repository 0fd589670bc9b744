"""Guesses at the next tokens, which the model then reads in one step; those that it would have written too are kept.

A text is the same with guesses as without them, to the token, at any temperature: a guess is kept where it is what the
model's own draw gives. Speculative sampling (Leviathan et al. 2023; Chen et al. 2023) keeps the distribution alone, and
its texts depend on the guesses. So that draws of two models agree as often as they can without that, both are made of
the same random numbers: with TV the distance of their distributions, that is (1 - TV) / (1 + TV) of the time or more,
where 1 - TV is the most that any rule keeps (Daliri, Musco and Suresh 2024, drafter-invariant speculative decoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from neural.generation.executor import Executor
from neural.generation.lookup import look_up
from neural.generation.options import SamplingOptions
from neural.generation.row import Row
from neural.generation.sampling import sample


class Drafter(Protocol):
    """Guesses for the rows that are being written; it is asked before each step, with all of them."""

    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        """For each row up to `most[i]` tokens that may come after its last."""

    @property
    def nbytes(self) -> int:
        """Memory that it keeps of texts."""


class LookUp:
    """What followed when the text said the same before."""

    nbytes = 0

    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        return [look_up(row.window, n) if n > 0 else [] for row, n in zip(rows, most, strict=True)]


class _Held(NamedTuple):
    """A row of the small model's batch: the window of a request, by where it begins."""

    handle: int
    first: int


class DraftModel:
    """What a smaller model of the same vocabulary would write.

    executor: of that model, opened with the engine's limits. A text that does not fit its context gets no guess.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._rows: list[_Held] = []  # row i of its batch
        self._windows: list[list[int]] = []  # what row i has read

    @property
    def nbytes(self) -> int:
        return self._executor.nbytes

    def guess(self, rows: Sequence[Row], most: Sequence[int]) -> list[list[int]]:
        # A step reads what the row has won of the last guesses, and the guesses of this one
        room = self._executor.context - self._executor.limits.draft_tokens
        drafted = {
            _Held(row.handle, row.first): (place, row, n)
            for place, (row, n) in enumerate(zip(rows, most, strict=True))
            if n > 0 and 1 < len(row.window) <= room
        }
        self._leave({held: row for held, (_, row, _) in drafted.items()})
        self._join({held: row for held, (_, row, _) in drafted.items() if held not in self._rows})
        guesses: list[list[int]] = [[] for _ in rows]
        if drafted:
            chosen = [drafted[held] for held in self._rows]
            written = self._written([row for _, row, _ in chosen], max(most))
            for (place, _, n), guess in zip(chosen, written, strict=True):
                guesses[place] = guess[:n]
        return guesses

    def _leave(self, kept: dict[_Held, Row]) -> None:
        """Drop the other rows, and those that have gone on by more than one step since they were last asked for."""
        step = self._executor.limits.draft_tokens + 1
        for index in reversed(range(len(self._rows))):
            row, read = kept.get(self._rows[index]), self._windows[index]
            if row is None or len(row.window) > len(read) + step:
                self._executor.leave(index, read)
                self._rows[index], self._windows[index] = self._rows[-1], self._windows[-1]
                self._rows.pop()
                self._windows.pop()

    def _join(self, new: dict[_Held, Row]) -> None:
        for held, row in new.items():
            window = row.window[:-1]  # its last token is read with those of the other rows
            self._executor.reserve(len(self._rows) + 1, self._executor.context)
            known = self._executor.begin(window)
            if known < len(window):
                self._executor.read(window[known:])
            self._executor.join()
            self._rows.append(held)
            self._windows.append(window)

    def _written(self, rows: Sequence[Row], count: int) -> list[list[int]]:
        """`count` tokens for each row, in the order of the batch."""
        manners = [_manner(row.manner) for row in rows]
        generators = [deepcopy(row.generator) for row in rows]  # the numbers that the engine will draw by
        new = [row.window[len(read) :] for row, read in zip(rows, self._windows, strict=True)]
        counts = [len(tokens) for tokens in new]
        logits = self._executor.decode([[*tokens, *[0] * (max(counts) - len(tokens))] for tokens in new])
        last = logits[torch.arange(len(rows)), torch.tensor(counts) - 1]
        guesses = [[token] for token in _drawn(last, manners, generators)]
        self._executor.commit(counts)
        for tokens, read in zip(new, self._windows, strict=True):
            read += tokens
        for _ in range(1, count):
            logits = self._executor.decode(guesses)[:, -1]
            for guess, token in zip(guesses, _drawn(logits, manners, generators), strict=True):
                guess.append(token)
            self._executor.commit([0] * len(rows))  # whether they are right, the engine says
        return guesses


def _manner(options: SamplingOptions) -> SamplingOptions:
    """Without what depends on the text so far: a guess may be wrong."""
    return replace(options, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0)


def _drawn(logits: Tensor, manners: list[SamplingOptions], generators: list[np.random.Generator]) -> list[int]:
    rows = zip(logits.float().cpu().numpy(), manners, generators, strict=True)
    return [int(sample(row[None], manner, [generator])[0]) for row, manner, generator in rows]
