"""Sequences out of a token store: shuffled and without end for training, one after another for evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from neural.data.permutation import KEYS, permuted
from neural.data.shards import TokenStore
from neural.diagnostics.diagnostic import fail

Batch = tuple[np.ndarray, np.ndarray]
"""Inputs and targets, int64 (B, T): targets[b, t] is the token after inputs[b, t]."""

MANY = 32
AHEAD = 2
BLOCK = 4096  # places of the shuffled order that are worked out together


class Batches:
    """Batches of the tokens [start, stop) of a store, without end.

    An epoch cuts the range into windows of `context` inputs, from a random phase on, and takes them in a random
    order: no token is an input twice. One batch may hold the end of an epoch and the beginning of the next. A range
    of up to 32 windows gives every whole window in every epoch and its phase is within what is left over; a longer
    one gives up one window of each epoch, so that every phase is possible and every token meets every context.
    NeuralError N712 if the range is too short for one sequence, N714 for sizes below 1 and a seed below 0.
    """

    def __init__(self, store: TokenStore, start: int, stop: int, *, context: int, batch_size: int, seed: int) -> None:
        whole = _whole_windows(start, stop, context, batch_size)
        if seed < 0:
            fail("N714", f"a seed of {seed} is below 0")
        self.windows_per_epoch = whole - (whole > MANY)
        self._slack = (stop - start - 1) - self.windows_per_epoch * context
        self._store, self._start, self._context = store, start, context
        self.batch_size, self._seed = batch_size, seed
        self._ordered = lru_cache(maxsize=4)(self._order)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every window of an epoch has come: the last of them may reach into the next epoch."""
        return -(-self.windows_per_epoch // self.batch_size)

    def batch(self, index: int) -> Batch:
        """Batch number `index`, from 0: a pure function of the seed and the index, so that resuming needs no more."""
        return _read(self._store, self.starts(index), self._context)

    def starts(self, index: int) -> np.ndarray:
        """(B,) int64: where in the store the sequences of a batch begin."""
        return self._places(index * self.batch_size, self.batch_size)

    def sequences(self, first: int, count: int) -> Batch:
        """`count` sequences from number `first` on, of all that the training takes one after another."""
        return _read(self._store, self._places(first, count), self._context)

    def share(self, rank: int, size: int, accumulation: int) -> Share:
        """Share number `rank` of `size` of the sequences of each step, which takes `accumulation` batches.

        NeuralError N836 where the sequences of a step do not divide.
        """
        return Share(self, rank, size, accumulation)

    def _places(self, first: int, count: int) -> np.ndarray:
        numbers = np.arange(first, first + count, dtype=np.int64)
        epochs, places = np.divmod(numbers, self.windows_per_epoch)
        starts = np.empty_like(numbers)
        for epoch, block in sorted(set(zip(epochs.tolist(), (places // BLOCK).tolist(), strict=True))):
            here = (epochs == epoch) & (places // BLOCK == block)
            starts[here] = self._ordered(epoch, block)[places[here] - block * BLOCK]
        return starts

    def _order(self, epoch: int, block: int) -> np.ndarray:
        """Where the sequences of an epoch begin, in their order, BLOCK of them from `block * BLOCK` on.

        NumPy promises to keep SeedSequence's output, not a Generator's.
        """
        drawn = np.random.SeedSequence([self._seed, epoch]).generate_state(1 + KEYS, np.uint64)
        phase = int(drawn[0]) % min(self._slack + 1, self._context)
        places = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.windows_per_epoch))
        return self._start + phase + permuted(places, self.windows_per_epoch, drawn[1:]) * self._context


class Share:
    """What one of several processes takes of `Batches`: of each step the same number of sequences, none twice.

    All shares together are the step's sequences in their order: number r takes the r-th part of them, in `per_step`
    batches of one size, no larger than the batches of the whole.
    """

    def __init__(self, batches: Batches, rank: int, size: int, accumulation: int) -> None:
        self._batches, self._rank = batches, rank
        self._step = batches.batch_size * accumulation
        require_equal_shares(batches.batch_size, accumulation, size)
        own = self._step // size
        largest = min(own, batches.batch_size)
        self._count = next(n for n in range(largest, 0, -1) if own % n == 0)
        self.per_step = own // self._count

    def batch(self, index: int) -> Batch:
        """Batch number `index` of this share, `per_step` of them a step."""
        step, place = divmod(index, self.per_step)
        first = step * self._step + (self._rank * self.per_step + place) * self._count
        return self._batches.sequences(first, self._count)


def require_equal_shares(batch_size: int, accumulation: int, size: int) -> None:
    """NeuralError N836 unless the sequences of a step divide among `size` processes."""
    if batch_size * accumulation % size:
        fail(
            "N836",
            f"the {batch_size * accumulation:,} sequences of a step do not divide among {size} processes",
            notes=(f"batch_size × gradient_accumulation is {batch_size} × {accumulation}",),
            hint=f"make it a multiple of {size}, or use another number of devices",
        )


def evaluation_batches(
    store: TokenStore, start: int, stop: int, *, context: int, batch_size: int, limit: int | None = None
) -> Iterator[Batch]:
    """The sequences of a range one after another, each whole one and the last too; the last batch may be smaller.

    1024 * n + 1 tokens with context 1024 are n sequences. `limit`: at most so many batches, of sequences spread
    evenly over the range. NeuralError N712 if the range is too short for one sequence, N714 for sizes below 1.
    """
    windows = np.arange(_whole_windows(start, stop, context, batch_size))
    if limit is not None and limit * batch_size < len(windows):
        windows = windows[np.arange(limit * batch_size) * len(windows) // (limit * batch_size)]
    for first in range(0, len(windows), batch_size):
        yield _read(store, start + windows[first : first + batch_size] * context, context)


def prefetch(batches: Batches | Share, start_index: int) -> Iterator[Batch]:
    """Batches from `start_index` on, read by a thread while the one before is used.

    What `batch` raises is raised here. Closing the iterator, or dropping it, ends the thread, which is not waited for:
    what is dropped may be so by the garbage collector, in any thread, while locks of `threading` are held.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        coming = deque(pool.submit(batches.batch, start_index + i) for i in range(AHEAD))
        while True:
            start_index += 1
            coming.append(pool.submit(batches.batch, start_index + AHEAD - 1))
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def split(store: TokenStore, validation_fraction: float, context: int) -> tuple[range, range]:
    """The tokens for training and those for validation, which are the last ones: cut at int(n * (1 - fraction)).

    A fraction of 0 leaves no validation. NeuralError N713 if a side is too short for one sequence of `context` + 1,
    N714 for a fraction outside [0, 1).
    """
    if not 0 <= validation_fraction < 1:
        fail("N714", f"a validation split of {validation_fraction} is not at least 0 and below 1", hint="0.1 is usual")
    n = store.n_tokens
    at = int(n * (1 - validation_fraction))
    sides = {"training": range(at), "validation": range(at, n)}
    for name, side in sides.items():
        if len(side) <= context and (side or name == "training" or validation_fraction > 0):
            fail(
                "N713",
                f"{len(side):,} of {n:,} tokens are for {name}, too few for one sequence of {context:,} + 1",
                notes=(f"validation_split is {validation_fraction}: {at:,} tokens to train on, {n - at:,} held out",),
                hint="give more text, a shorter context, or another validation_split"
                + (" (0 leaves validation out)" if name == "validation" else ""),
            )
    return sides["training"], sides["validation"]


def _whole_windows(start: int, stop: int, context: int, batch_size: int) -> int:
    for name, size in (("context", context), ("batch size", batch_size)):
        if size < 1:
            fail("N714", f"a {name} of {size} is below 1")
    whole = (stop - start - 1) // context
    if whole < 1:
        fail(
            "N712",
            f"{max(stop - start, 0):,} tokens are too few for one sequence of {context:,} + 1",
            hint="give more text, or a shorter context",
        )
    return whole


def _read(store: TokenStore, starts: np.ndarray, context: int) -> Batch:
    tokens = np.stack([store[at : at + context + 1] for at in starts.tolist()]).astype(np.int64)  # (B, T + 1)
    return tokens[:, :-1], tokens[:, 1:]
