"""Sequences: each token once an epoch, the same for the same seed and index, and none lost at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural.data.loader import MANY, Batches, evaluation_batches, prefetch, split
from neural.data.permutation import KEYS, permuted
from neural.diagnostics.diagnostic import NeuralError


class Store:
    """Ids 0, 1, 2, …: an id is its place."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        return np.arange(self.n_tokens)[part]


def keys(seed: int) -> np.ndarray:
    return np.random.SeedSequence(seed).generate_state(KEYS, np.uint64)


@given(size=st.integers(1, 3000), seed=st.integers(0, 1000))
def test_a_permutation(size: int, seed: int) -> None:
    assert sorted(permuted(np.arange(size), size, keys(seed)).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2, 3, 5, 16, 17, 100])
def test_permutations_are_even(size: int) -> None:
    """Over many keys, every place goes everywhere alike: chi-square within four standard deviations."""
    trials = 2000
    found = np.stack([permuted(np.arange(size), size, keys(seed)) for seed in range(trials)])
    for place in (0, size // 2, size - 1):
        counts = np.bincount(found[:, place], minlength=size)
        chi_square = ((counts - trials / size) ** 2 / (trials / size)).sum()
        assert abs(chi_square - (size - 1)) < 4 * np.sqrt(2 * (size - 1)) + 4


def test_neighbours_part() -> None:
    order = permuted(np.arange(10_000), 10_000, keys(0))
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.04
    assert (np.abs(np.diff(order)) == 1).sum() < 10


def test_a_permutation_of_very_many() -> None:
    size = 1 << 40
    found = permuted(np.arange(1000), size, keys(0))
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < size


SHAPES = {"length": st.integers(2, 400), "context": st.integers(1, 20), "batch_size": st.integers(1, 9)}


def batches(length: int, context: int, batch_size: int, seed: int = 0, start: int = 0) -> Batches:
    return Batches(Store(start + length), start, start + length, context=context, batch_size=batch_size, seed=seed)


@given(**SHAPES, seed=st.integers(0, 1 << 40), start=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch(length: int, context: int, batch_size: int, seed: int, start: int, epoch: int) -> None:
    """Windows of context + 1 that follow one another in the range; no input twice; at most one window given up."""
    if length <= context:
        return
    loader = batches(length, context, batch_size, seed, start)
    whole = (length - 1) // context
    assert loader.windows_per_epoch == (whole if whole <= MANY else whole - 1)
    first = epoch * loader.windows_per_epoch
    drawn = [loader.starts(i) for i in range(first // batch_size, first // batch_size + loader.batches_per_epoch + 1)]
    starts = np.concatenate(drawn)[first % batch_size :][: loader.windows_per_epoch]
    assert len(set(starts.tolist())) == loader.windows_per_epoch
    assert len(set((starts % context).tolist())) == 1  # one phase
    assert starts.min() >= start and starts.max() + context + 1 <= start + length


@given(**SHAPES, index=st.integers(0, 1 << 33))
def test_a_batch(length: int, context: int, batch_size: int, index: int) -> None:
    if length <= context:
        return
    loader = batches(length, context, batch_size)
    inputs, targets = loader.batch(index)
    assert inputs.shape == targets.shape == (batch_size, context)
    assert inputs.dtype == targets.dtype == np.int64
    assert (targets == inputs + 1).all()
    assert (np.diff(inputs, axis=1) == 1).all()
    assert (inputs[:, 0] == loader.starts(index)).all()


def test_every_id_once_an_epoch() -> None:
    loader = batches(20 * 16 + 1, 16, 4)
    seen = Counter(np.concatenate([loader.batch(i)[0] for i in range(loader.batches_per_epoch)]).ravel().tolist())
    assert seen == Counter(range(320))


def test_long_ranges_have_every_phase() -> None:
    loader = batches(16 * 64 + 1, 16, 63)
    starts = np.stack([loader.starts(epoch) for epoch in range(400)])
    phases = Counter((starts[:, 0] % 16).tolist())
    assert set(phases) == set(range(16)) and max(phases.values()) < 50
    assert len({tuple(row) for row in (starts // 16).tolist()}) == 400  # and an order of its own each


def test_a_batch_depends_on_the_seed_and_the_index_alone() -> None:
    straight = batches(1000, 10, 7, seed=5)
    in_order = [straight.batch(i)[0] for i in range(60)]
    for i in (59, 3, 31, 3):
        assert (batches(1000, 10, 7, seed=5).batch(i)[0] == in_order[i]).all()
        assert (straight.batch(i)[0] == in_order[i]).all()
    assert not (batches(1000, 10, 7, seed=6).batch(0)[0] == in_order[0]).all()


GOLDEN = {
    0: [158, 88, 628, 958, 278, 838, 848, 348],
    12: [758, 218, 188, 189, 199, 599, 609, 309],
    1_000_000: [845, 25, 215, 55, 765, 205, 325, 275],
}


def test_the_order_is_for_ever() -> None:
    """A run that is resumed with a later NumPy, or by a later version of this program, goes on with these."""
    loader = batches(1001, 10, 8, seed=1337)
    assert {index: loader.starts(index).tolist() for index in GOLDEN} == GOLDEN


@pytest.mark.parametrize(("length", "sequences"), [(2049, 2), (2048, 1), (1025, 1), (3000, 2), (3073, 3)])
def test_every_whole_chunk(length: int, sequences: int) -> None:
    found = list(evaluation_batches(Store(length + 7), 7, length + 7, context=1024, batch_size=2))
    inputs = np.concatenate([batch[0] for batch in found])
    assert inputs.ravel().tolist() == list(range(7, 7 + sequences * 1024))
    assert all((targets == batch + 1).all() for batch, targets in found)
    assert batches(length, 1024, 2).windows_per_epoch == sequences


def test_evaluation_in_part() -> None:
    found = list(evaluation_batches(Store(1001), 0, 1001, context=10, batch_size=4, limit=5))
    starts = np.concatenate([inputs[:, 0] for inputs, _ in found])
    assert [len(inputs) for inputs, _ in found] == [4] * 5
    assert starts.tolist() == list(range(0, 1000, 50))
    everything = list(evaluation_batches(Store(1001), 0, 1001, context=10, batch_size=30, limit=5))
    assert [len(inputs) for inputs, _ in everything] == [30, 30, 30, 10]


@pytest.mark.parametrize(("fraction", "n"), [(0.1, 1_115_394), (0.1, 1000), (0.05, 12_345), (0.5, 1001), (0.0, 100)])
def test_split_is_nanogpts(fraction: float, n: int) -> None:
    training, validation = split(Store(n), fraction, 10)
    data = list(range(n))
    assert data[training.start : training.stop] == data[: int(n * (1 - fraction))]
    assert data[validation.start : validation.stop] == data[int(n * (1 - fraction)) :]
    if fraction == 0.1:
        assert len(training) == int(0.9 * n)


REFUSED = {
    "too short": (lambda: batches(16, 16, 1), ("N712", "16 tokens", "16 + 1")),
    "nothing": (lambda: batches(0, 16, 1), ("N712", "0 tokens")),
    "too short to evaluate": (
        lambda: list(evaluation_batches(Store(9), 0, 9, context=9, batch_size=1)),
        ("N712", "9 tokens"),
    ),
    "no context": (lambda: batches(16, 0, 1), ("N714", "context of 0")),
    "no batch": (lambda: batches(16, 4, 0), ("N714", "batch size of 0")),
    "a seed below 0": (lambda: batches(16, 4, 1, seed=-1), ("N714", "seed of -1")),
    "validation too short": (
        lambda: split(Store(1000), 0.1, 100),
        ("N713", "100 of 1,000 tokens are for validation", "100 + 1", "0 leaves validation out"),
    ),
    "training too short": (
        lambda: split(Store(1000), 0.95, 100),
        ("N713", "50 of 1,000 tokens are for training", "950 held out"),
    ),
    "both too short": (lambda: split(Store(50), 0.5, 100), ("N713", "for training")),
    "no validation token": (lambda: split(Store(1000), 1e-9, 100), ("N713", "for validation")),
    "all held out": (lambda: split(Store(1000), 1.0, 10), ("N714", "1.0")),
    "less than none": (lambda: split(Store(1000), -0.1, 10), ("N714", "-0.1")),
    "not a number": (lambda: split(Store(1000), float("nan"), 10), ("N714", "nan")),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(refused, call, message: tuple[str, ...]) -> None:
    with refused(*message):
        call()


def test_prefetched_batches_are_the_batches() -> None:
    loader = batches(1000, 10, 7)
    coming = prefetch(loader, 5)
    for i in range(5, 60):
        inputs, targets = next(coming)
        assert (inputs == loader.batch(i)[0]).all() and (targets == loader.batch(i)[1]).all()
    coming.close()


def test_prefetching_ends_its_thread() -> None:
    def alive() -> int:
        return sum(thread.name.startswith("prefetch") for thread in set(threading.enumerate()) - others)

    def ends() -> bool:
        end = time.monotonic() + 60
        while alive() and time.monotonic() < end:
            time.sleep(0.001)
        return not alive()

    others = set(threading.enumerate())  # what tests before left to the garbage collector
    coming = prefetch(batches(1000, 10, 7), 0)
    next(coming)
    assert alive() == 1
    coming.close()
    assert ends()
    for _ in zip(prefetch(batches(1000, 10, 7), 0), range(3), strict=False):
        pass
    assert ends()  # dropped


def test_what_is_prefetched_is_not_waited_for() -> None:
    """Dropped by the garbage collector at a bad moment, an iterator that waited for its thread would do so for ever."""
    reading, dropped, ended = threading.Event(), threading.Event(), threading.Event()
    in_time = []

    class Slow:
        def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            if index == 1:
                reading.set()
                in_time.append(dropped.wait(30))
                ended.set()
            return np.zeros(1), np.zeros(1)

    coming = prefetch(Slow(), 0)
    next(coming)
    assert reading.wait(60)
    del coming
    dropped.set()
    assert ended.wait(60) and in_time == [True]


def test_prefetching_passes_errors_on() -> None:
    class Broken:
        def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            if index == 2:
                raise OSError("the disk is gone")
            return np.zeros(1), np.zeros(1)

    coming = prefetch(Broken(), 0)
    next(coming)
    next(coming)
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
    with pytest.raises(StopIteration):
        next(coming)


@pytest.mark.parametrize(("size", "accumulation"), [(1, 1), (2, 1), (3, 2), (4, 2), (6, 1), (12, 2)])
def test_shares_are_the_steps_sequences_in_their_order(size: int, accumulation: int) -> None:
    batches = Batches(Store(400), 0, 400, context=5, batch_size=6, seed=3)
    shares = [batches.share(rank, size, accumulation) for rank in range(size)]
    per_step = shares[0].per_step
    for step in range(20):  # over the end of an epoch
        whole = np.concatenate([batches.batch(step * accumulation + i)[0] for i in range(accumulation)])
        parts = [share.batch(step * per_step + i)[0] for share in shares for i in range(per_step)]
        assert {len(part) for part in parts} == {6 * accumulation // size // per_step} and len(parts[0]) <= 6
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_step_that_does_not_divide_is_refused() -> None:
    batches = Batches(Store(400), 0, 400, context=5, batch_size=6, seed=3)
    with pytest.raises(NeuralError, match="N836: the 12 sequences of a step do not divide among 5 processes"):
        batches.share(0, 5, 2)
