"""Many requests as one batch that each joins and leaves at any step. Tokens only: it knows no text and no network."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from neural.diagnostics.diagnostic import NeuralError, fail
from neural.generation.drafting import Drafter, LookUp
from neural.generation.executor import Executor
from neural.generation.filters import exponentials, largest
from neural.generation.greedy import greedy
from neural.generation.options import SamplingOptions
from neural.generation.request import Event, FinishReason, Logprobs, Request
from neural.generation.row import Row
from neural.generation.sampling import sample


class Engine:
    """Continuous batching: `submit` requests at any time, call `step` while `busy`, `cancel` what is not wanted.

    A request waits in a queue; is admitted when a slot is free and the cache has room for all that it can come to
    need; its prompt is read in chunks between the steps of the others; then each step gives it one token (several
    where guesses by prompt look-up were right). In the order of arrival, so that none starves.

    Its tokens are a function of the model, the request and nothing else: neither its neighbours, nor the chunks in
    which it was read, nor what was kept of earlier prompts. (Sums of floats depend in their last bits on the shapes
    of a product, so that this holds but for two tokens that are that close in a draw.)

    When a text fills the executor's context, the newest three quarters are read anew and it goes on.

    drafter: guesses up to `limits.draft_tokens` tokens ahead; by itself what followed when the text said the same.
    """

    def __init__(self, executor: Executor, drafter: Drafter | None = None) -> None:
        self.limits = executor.limits
        self._executor, self._drafter = executor, drafter or LookUp()
        self._context, self._vocab_size = executor.context, executor.vocab_size
        self._next_handle = 0
        self._queue: deque[Row] = deque()
        self._reading: deque[Row] = deque()  # admitted, and their windows not yet read; the first one is under way
        self._started: Row | None = None  # whose window the executor is reading
        self._writing: list[Row] = []  # row i of the executor's batch
        self._ended: list[Event] = []  # before they ever joined: to be told by the next step

    # What callers do

    def submit(self, request: Request) -> int:
        """Take a request; the handle that its events carry.

        Raises NeuralError N910, N911 (a prompt of no tokens, or of more than the context), N953 (ids that the model
        does not know), N954 (the queue is full), N955 (more than the cache can ever hold); nothing is held then.
        """
        self._check(request)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        if request.max_new_tokens == 0:
            self._ended.append(Event(handle, None, finish_reason=FinishReason.LENGTH))
        else:
            self._queue.append(Row(handle, request))
        return handle

    @torch.inference_mode()
    def cancel(self, handle: int) -> bool:
        """Forget a request, between two steps: no event of it comes any more. False where it had ended."""
        for waiting in (self._queue, self._reading):
            for row in waiting:
                if row.handle == handle:
                    waiting.remove(row)
                    return True
        for index, row in enumerate(self._writing):
            if row.handle == handle:
                self._remove(index)
                return True
        before = len(self._ended)
        self._ended = [event for event in self._ended if event.handle != handle]
        return len(self._ended) < before

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._queue or self._reading or self._writing or self._ended)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return len(self._reading) + len(self._writing)

    @property
    def nbytes(self) -> int:
        """Memory of the batch's cache and of kept prefixes, and what the drafter has of them."""
        return self._executor.nbytes + self._drafter.nbytes

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Write the next token of each request that is being written, and read some of the prompts that wait."""
        events, self._ended = self._ended, []
        self._admit()
        guesses = self._guesses()
        logits = self._decode(guesses)  # (B, T, V)
        firsts = list(self._read())  # of the rows that have just joined
        if self._writing:
            events += self._extend(guesses, logits, firsts)
        ended = {event.handle for event in events if event.last}
        for index in reversed(range(len(self._writing))):
            row = self._writing[index]
            if row.handle in ended:
                self._remove(index)
            elif row.length > self._context:
                self._remove(index)
                row.slide(self._context)
                self._reading.append(row)
        return events

    # Scheduling

    def _admit(self) -> None:
        while self._queue and self.running < self.limits.slots:
            rows = self.running + 1
            longest = max(self._need(row.request) for row in (*self._reading, *self._writing, self._queue[0]))
            if rows * longest > self._executor.most_tokens:
                return
            self._executor.reserve(rows, longest)
            row = self._queue.popleft()
            row.start(self._vocab_size)
            self._reading.append(row)

    def _need(self, request: Request) -> int:
        """Places in the cache that a request can come to need."""
        return min(len(request.prompt) + request.max_new_tokens + self.limits.draft_tokens, self._context)

    def _read(self) -> Iterator[Tensor]:
        """Read as many tokens of prompts as one step may; rows that are read wholly join, and give their logits."""
        left = self.limits.prefill_tokens
        while self._reading and left > 0:
            row = self._reading[0]
            if self._started is not row:
                row.read = self._executor.begin(row.window)
                self._started = row
            chunk = row.window[row.read : row.read + left]
            if chunk:
                self._executor.read(chunk)
                row.read += len(chunk)
                left -= len(chunk)
            if row.read == row.length:
                self._reading.popleft()
                self._started = None
                self._writing.append(row)
                yield self._executor.join()

    def _remove(self, index: int) -> None:
        self._executor.leave(index, self._writing[index].window)
        self._writing[index] = self._writing[-1]
        self._writing.pop()

    # Writing

    def _guesses(self) -> list[list[int]]:
        """For each row the tokens that may come after its last, as far as its end and the cache allow."""
        longest = max((row.length for row in self._writing), default=0)
        most = min(self.limits.draft_tokens, self._context - longest)
        if most <= 0:
            return [[] for _ in self._writing]
        left = [min(most, row.request.max_new_tokens - row.written - 1) for row in self._writing]
        return self._drafter.guess(self._writing, left)

    def _decode(self, guesses: list[list[int]]) -> Tensor | None:
        """The model over each row's last token and the guesses after it: logits (B, T, V), None of no rows."""
        if not self._writing:
            return None
        width = max(map(len, guesses))
        ids = [
            [row.ids[-1], *guess, *[0] * (width - len(guess))]
            for row, guess in zip(self._writing, guesses, strict=True)
        ]
        return self._executor.decode(ids)

    def _extend(self, guesses: list[list[int]], logits: Tensor | None, firsts: list[Tensor]) -> list[Event]:
        """Draw the next token of every row; where that is what was guessed, the one after it too, and so on."""
        if not firsts and not any(guesses) and (tokens := greedy(self._writing, logits[:, 0])) is not None:
            self._executor.commit([1] * len(tokens))
            return [self._event(row, token, None) for row, token in zip(self._writing, tokens, strict=True)]
        guesses = [*guesses, *[[] for _ in firsts]]
        numbers = None if logits is None else _numbers(logits)
        first = [] if numbers is None else [numbers[:, 0]]
        first += [_numbers(row)[None] for row in firsts]
        events = self._draw(self._writing, first[0] if len(first) == 1 else np.concatenate(first))
        stay = [1] * (len(guesses) - len(firsts)) + [0] * len(firsts)
        latest = events
        for place in range(max(map(len, guesses))):
            over = {event.handle for event in latest if event.last}
            right = [
                i
                for i, (row, guess) in enumerate(zip(self._writing, guesses, strict=True))
                if stay[i] == place + 1 and guess[place : place + 1] == row.ids[-1:] and row.handle not in over
            ]
            if not right:
                break
            latest = self._draw([self._writing[i] for i in right], numbers[right, place + 1])
            events = [*events, *latest]
            for i in right:
                stay[i] += 1
        self._executor.commit(stay)
        return events

    def _draw(self, rows: list[Row], logits: np.ndarray) -> list[Event]:
        """The next token of each row, of logits (B, V); the events in the order of the rows."""
        manners: dict[SamplingOptions, list[int]] = {}
        for index, row in enumerate(rows):
            manners.setdefault(row.manner, []).append(index)
        drawn: dict[int, int | NeuralError] = {}
        for indices in manners.values():
            of_group = logits if len(indices) == len(rows) else logits[indices]
            drawn |= zip(indices, _sampled([rows[i] for i in indices], of_group), strict=True)
        return [self._event(row, drawn[i], logits[i]) for i, row in enumerate(rows)]

    def _event(self, row: Row, drawn: int | NeuralError, logits: np.ndarray | None) -> Event:
        """logits: (V,), which those who want log probabilities must give."""
        if isinstance(drawn, NeuralError):
            return Event(row.handle, None, error=drawn)
        wanted = row.request.logprobs
        logprobs = None if wanted is None else _logprobs(logits, drawn, wanted)
        try:
            return Event(row.handle, drawn, logprobs, row.push(drawn))
        except NeuralError as error:
            return Event(row.handle, drawn, error=error)

    def _check(self, request: Request) -> None:
        prompt, limits = request.prompt, self.limits
        if not len(prompt):
            fail("N910", "the prompt is empty", hint="give one token at least, such as end-of-text")
        if len(prompt) > self._context:
            fail(
                "N911",
                f"the prompt is {len(prompt)} tokens long, and the model's context is {self._context}",
                hint=f"shorten it, or use its newest {self._context} tokens",
            )
        named = (*prompt, *request.options.named_tokens)
        strange = next((token for token in named if not 0 <= token < self._vocab_size), None)
        if strange is not None:
            fail(
                "N953",
                f"there is no token {strange}: the model knows {self._vocab_size}, from 0 to {self._vocab_size - 1}",
                hint="encode the text with the tokenizer that the model was trained with",
            )
        if len(self._queue) >= limits.queue:
            fail("N954", f"{len(self._queue)} requests wait, and no more may", hint="try again when some are done")
        need = self._need(request)
        if need > self._executor.most_tokens:
            fail(
                "N955",
                f"the request can come to {need} tokens, and the cache holds {self._executor.most_tokens}",
                hint="shorten the prompt, ask for fewer new tokens, or give the engine a larger cache",
            )


def _sampled(rows: list[Row], logits: np.ndarray) -> list[int | NeuralError]:
    """Ids of rows of one manner. Where a row has no token left to draw, its mistake, and the others go on."""
    try:
        return sample(logits, rows[0].manner, [row.generator for row in rows], Row.past(rows)).tolist()
    except NeuralError as error:  # before anything was drawn
        if len(rows) == 1:
            return [error]
        return [_sampled([row], logits[i : i + 1])[0] for i, row in enumerate(rows)]


def _logprobs(logits: np.ndarray, token: int, count: int) -> Logprobs:
    """Of logits (V,)."""
    peak = logits.max()
    logarithms = logits - (peak + math.log(exponentials(logits[None]).sum()))
    top = largest(logits, count)
    return Logprobs(logarithms[token].item(), tuple(zip(top.tolist(), logarithms[top].tolist(), strict=True)))


def _numbers(logits: Tensor) -> np.ndarray:
    return logits.float().cpu().numpy()
