"""The sampler against a slow reference, against transformers, and its draws against the distribution."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from neural.diagnostics.diagnostic import NeuralError
from neural.generation import filters
from neural.generation.filters import SHORTLIST, completing, exponentials, keep_top_k, keep_top_p, keep_typical, largest
from neural.generation.options import SamplingOptions
from neural.generation.sampling import Narrowed, Past, draw, narrowed, penalised, row_generator, sample
from tests.generation.reference import probabilities

OPTIONS = [
    SamplingOptions(),
    SamplingOptions(temperature=0.0),
    SamplingOptions(temperature=0.0, repetition_penalty=1.5, top_k=3),
    SamplingOptions(temperature=0.3),
    SamplingOptions(temperature=2.5),
    SamplingOptions(top_k=1),
    SamplingOptions(top_k=5),
    SamplingOptions(top_k=10_000),
    SamplingOptions(top_p=1e-9),
    SamplingOptions(top_p=0.5),
    SamplingOptions(top_p=0.95),
    SamplingOptions(top_p=1.0),
    SamplingOptions(min_p=0.0),
    SamplingOptions(min_p=0.1),
    SamplingOptions(min_p=1.0),
    SamplingOptions(repetition_penalty=1.3),
    SamplingOptions(repetition_penalty=0.7),
    SamplingOptions(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
    SamplingOptions(temperature=1.7, top_k=7, top_p=0.6, min_p=0.2, repetition_penalty=2.0),
    SamplingOptions(typical_p=0.2),
    SamplingOptions(typical_p=0.9),
    SamplingOptions(typical_p=1.0),
    SamplingOptions(frequency_penalty=0.4),
    SamplingOptions(presence_penalty=-0.7),
    SamplingOptions(logit_bias=((0, 1.5), (0, 0.25))),
    SamplingOptions(allowed=(0,)),
    SamplingOptions(temperature=0.0, frequency_penalty=1.1, presence_penalty=0.3, logit_bias=((0, -2.0),)),
    SamplingOptions(
        temperature=0.8,
        top_k=30,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.8,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=0.2,
        logit_bias=((0, 0.5),),
    ),
]
ROWS = int(os.environ.get("NEURAL_SAMPLER_ROWS", "100"))  # of each vocabulary; 2500 give ten thousand a row of OPTIONS


def row_generators(seed: int, count: int) -> list[np.random.Generator]:
    return [row_generator(seed, index) for index in range(count)]


def random_rows(seed: int, rows: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, V) float32, a third of them full of ties, a third with tokens ruled out; seen (rows, V) bool."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([0.1, 1, 5], (rows, 1)), (rows, vocab_size)).astype(np.float32)
    logits[::3] = np.round(logits[::3])
    logits[1::3][rng.random(logits[1::3].shape) < 0.3] = -np.inf
    logits[:, rng.integers(vocab_size)] = 0.5
    return logits, rng.random((rows, vocab_size)) < 0.2


def written_once(seen: np.ndarray) -> Past:
    """Of texts that have each token seen just once."""
    return Past(seen, seen.astype(np.float32))


def filtered(logits: np.ndarray, options: SamplingOptions, past: Past | None = None) -> np.ndarray:
    """The logits (B, V) whose softmax is the distribution that `sample` draws from."""
    logits = penalised(logits, options, past or Past())
    if options.temperature == 0:
        return logits
    left = narrowed(logits, options)
    whole = np.full_like(logits, -math.inf)
    whole[:, slice(None) if left.ids is None else left.ids] = left.logits
    return whole


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1, dtype=torch.float64).numpy()


def random_past(seed: int, seen: np.ndarray) -> Past:
    """Counts, tokens that must not come and those that may: never none of a row."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.4, seen.shape).astype(np.float32)
    size = seen.shape[1]
    permitted = rng.random(seen.shape) < rng.choice([0.3, 1.0], (len(seen), 1))
    permitted[:, 0] = True
    banned = [rng.permutation(np.arange(1, size))[: rng.integers(0, 4)].tolist() for _ in seen]
    return Past(seen, counts, banned, permitted)


@pytest.mark.parametrize("vocab_size", [1, 2, 17, 60, 300])
@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_distribution_is_the_references(
    options: SamplingOptions, vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows together, and of each by itself, where few of the tokens are put in order."""
    monkeypatch.setattr(filters, "SHORTLIST", 4)
    logits, seen = random_rows(vocab_size, ROWS if vocab_size < 100 else max(10, ROWS // 10), vocab_size)
    logits[:, 0] = 0.5  # never ruled out
    past = random_past(vocab_size, seen)
    together = filtered(logits, options, past)
    actual = softmax(together) if options.temperature else np.eye(vocab_size)[together.argmax(-1)]
    expected = np.empty_like(actual)
    for i, row in enumerate(logits):
        counts, permitted = past.counts[i], past.permitted[i]
        expected[i] = probabilities(
            row,
            options,
            set(seen[i].nonzero()[0]),
            {token: counts[token] for token in counts.nonzero()[0]},
            {*past.banned[i], *np.flatnonzero(~permitted)},
        )
        alone = Past(seen[i : i + 1], past.counts[i : i + 1], past.banned[i : i + 1], past.permitted[i : i + 1])
        np.testing.assert_array_equal(filtered(row[None], options, alone)[0], together[i])
    np.testing.assert_array_equal(actual > 0, expected > 0)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ([(3,)], [], [3]),
        ([(1, 2)], [1], [2]),
        ([(1, 2)], [1, 5], []),
        ([(1, 2, 3), (2, 9), (7,)], [1, 2], [3, 9, 7]),
        ([(1, 1, 1)], [1], []),
    ],
)
def test_bad_words_are_stopped_at_their_last_token(words: list, text: list, expected: list) -> None:
    assert completing(words, text) == expected


def test_typical_is_transformers_typical() -> None:
    logits = torch.randn(300, 200, generator=torch.Generator().manual_seed(3)) * 2
    for p in (0.2, 0.6, 0.95):
        expected = TypicalLogitsWarper(p)(None, logits.clone())
        assert np.array_equal(np.isinf(keep_typical(logits.numpy(), p)), expected.isinf().numpy())


@pytest.mark.parametrize(
    ("options", "warper"),
    [
        (SamplingOptions(temperature=0.7), TemperatureLogitsWarper(0.7)),
        (SamplingOptions(top_k=5), TopKLogitsWarper(5)),
        (SamplingOptions(top_k=900), TopKLogitsWarper(900)),
        (SamplingOptions(top_p=0.3), TopPLogitsWarper(0.3)),
        (SamplingOptions(top_p=0.92), TopPLogitsWarper(0.92)),
        (SamplingOptions(min_p=0.07), MinPLogitsWarper(0.07)),
        (SamplingOptions(repetition_penalty=1.4), RepetitionPenaltyLogitsProcessor(1.4)),
    ],
    ids=lambda value: repr(value) if isinstance(value, SamplingOptions) else type(value).__name__,
)
def test_filters_agree_with_transformers(options: SamplingOptions, warper: object) -> None:
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(400, 300, generator=rng) * 3
    text = torch.randint(300, (400, 25), generator=rng)
    seen = torch.zeros(400, 300, dtype=torch.bool).scatter_(1, text, True)
    expected = warper(text, logits.clone())
    actual = torch.from_numpy(filtered(logits.numpy(), options, Past(seen.numpy())))
    assert torch.equal(actual.isinf(), expected.isinf())
    torch.testing.assert_close(actual.softmax(-1), expected.softmax(-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("p", [0.5, 0.999, 0.999999])
def test_a_nucleus_wider_than_the_shortlist_is_whole(p: float) -> None:
    logits = np.random.default_rng(1).normal(0, 0.2, (1, 100 * SHORTLIST)).astype(np.float32)
    mass = np.sort(softmax(logits))[:, ::-1].cumsum(-1)
    assert np.isfinite(keep_top_p(logits, p)).sum(-1).tolist() == ((mass < p).sum(-1) + 1).tolist()


def test_a_nucleus_that_a_token_just_fills_is_the_same_alone() -> None:
    """Where sums in two orders could differ in what they reach."""
    logits = np.random.default_rng(0).normal(0, 0.2, (2, 16 * SHORTLIST)).astype(np.float32)
    mass = np.sort(exponentials(logits[:1]))[0, ::-1].cumsum() / exponentials(logits[:1]).sum()
    for p in mass[2 * SHORTLIST :: 100].tolist():
        np.testing.assert_array_equal(keep_top_p(logits[:1], p)[0], keep_top_p(logits, p)[0])


@pytest.mark.parametrize("count", [1, 3, 40, 4000])
def test_the_largest_of_many(count: int) -> None:
    scores = np.random.default_rng(2).normal(0, 3, 5000).round(1).astype(np.float32)  # of ties
    scores[::7] = -math.inf
    scores[1::7] *= -0.0
    expected = sorted(range(5000), key=lambda i: (-scores[i], i))[:count]
    assert largest(scores, count).tolist() == expected


def test_ties_keep_the_lowest_ids_and_exactly_k() -> None:
    rows = np.array([[1.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    expected = [[False, True, True, False, False], [True, True, False, False, False]]
    assert (keep_top_k(rows, 2) > -math.inf).tolist() == expected
    assert [(keep_top_k(row[None], 2)[0] > -math.inf).tolist() for row in rows] == expected


@pytest.mark.parametrize(("equals", "p", "kept"), [(8, 0.25, 2), (8, 0.26, 3), (10, 0.8, 8), (5, 0.2, 1), (3, 1.0, 3)])
def test_a_nucleus_among_equals_is_the_smallest(equals: int, p: float, kept: int) -> None:
    rows = np.zeros((1, equals), np.float32)
    assert (keep_top_p(rows, p) > -math.inf).tolist() == [[i < kept for i in range(equals)]]


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-9])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits, seen = random_rows(5, 60, 30)
    logits[:, 0] = 40.0
    ids = sample(logits, SamplingOptions(temperature=temperature), row_generators(0, 60), Past(seen))
    assert ids.tolist() == [0] * 60


def test_greedy_takes_the_lowest_of_ties_and_draws_nothing() -> None:
    generators = row_generators(0, 2)
    before = [g.bit_generator.state for g in generators]
    rows = np.array([[0.0, 3.0, 3.0], [1.0, 1.0, 1.0]], np.float32)
    assert sample(rows, SamplingOptions(temperature=0), generators).tolist() == [1, 0]
    assert [g.bit_generator.state for g in generators] == before


def test_penalty_makes_seen_tokens_less_probable_whatever_their_sign() -> None:
    logits, seen = np.array([[2.0, -2.0, 0.0]], np.float32), np.ones((1, 3), bool)
    assert filtered(logits, SamplingOptions(repetition_penalty=2), Past(seen)).tolist() == [[1.0, -4.0, 0.0]]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's p-value; cells that expect nothing must be empty, those under 5 are pooled."""
    assert (counts[expected == 0] == 0).all()
    counts, expected = counts[expected > 0], expected[expected > 0]
    small = expected < 5
    if small.any():
        counts = np.append(counts[~small], counts[small].sum())
        expected = np.append(expected[~small], expected[small].sum())
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    return float(torch.special.gammaincc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2.0)))


DRAWN = [options for options in OPTIONS if options.temperature > 0 and options.top_k != 1]


@pytest.mark.parametrize("options", DRAWN, ids=repr)
def test_draws_follow_the_reference_distribution(options: SamplingOptions) -> None:
    """Three rows of different distributions, 400 samples of 40 draws each: within and between generators."""
    samples, draws, vocab_size = 400, 40, 23
    rng = np.random.default_rng(8)
    logits = rng.normal(0, 1.5, (3, vocab_size)).astype(np.float32)
    seen = rng.random((3, vocab_size)) < 0.4
    rows = np.arange(3).repeat(samples)
    generators = row_generators(1, 3 * samples)
    # ids (draws, 3 * samples)
    ids = np.stack([sample(logits[rows], options, generators, written_once(seen[rows])) for _ in range(draws)])
    for row in range(3):
        tokens = set(seen[row].nonzero()[0].tolist())
        expected = np.array(probabilities(logits[row], options, tokens, dict.fromkeys(tokens, 1)))
        counts = np.bincount(ids[:, rows == row].flatten(), minlength=vocab_size)
        if (expected > 0).sum() > 1:
            assert chi_square(counts, expected * samples * draws) > 1e-3
        else:
            assert counts[expected > 0].sum() == samples * draws


@pytest.mark.parametrize("axis", ["steps of a sample", "samples of a step", "seeds"])
def test_draws_are_independent(axis: str) -> None:
    distribution = np.array([0.1, 0.2, 0.3, 0.4])
    logits = np.log(np.tile(distribution, (500, 1))).astype(np.float32)
    seeds = (7, 8) if axis == "seeds" else (7,)
    ids = []
    for seed in seeds:
        generators = row_generators(seed, 500)
        ids.append(np.stack([draw(Narrowed(logits, None, 4), generators) for _ in range(40)]))
    table = ids[0]  # (steps, samples)
    pairs = {
        "steps of a sample": lambda: (table[::2], table[1::2]),
        "samples of a step": lambda: (table[:, ::2], table[:, 1::2]),
        "seeds": lambda: (table, ids[1]),
    }[axis]()
    counts = np.bincount((pairs[0] * 4 + pairs[1]).flatten(), minlength=16)
    expected = np.outer(distribution, distribution).flatten() * pairs[0].size
    assert chi_square(counts, expected) > 1e-3


@pytest.mark.parametrize("vocab_size", [40, 1500])
@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_a_row_is_the_same_alone_and_in_a_batch(options: SamplingOptions, vocab_size: int) -> None:
    logits, seen = random_rows(11, 12, vocab_size)
    logits[:, 0] = 0.5  # never ruled out
    together = row_generators(5, 12)
    batch = np.stack([sample(logits, options, together, written_once(seen)) for _ in range(5)], axis=1)
    for row, generator in enumerate(row_generators(5, 12)):
        alone = [
            sample(logits[row : row + 1], options, [generator], written_once(seen[row : row + 1])).item()
            for _ in range(5)
        ]
        assert alone == batch[row].tolist()


def test_a_samples_numbers_do_not_depend_on_how_many_there_are() -> None:
    few, many = row_generators(3, 2), row_generators(3, 9)
    assert [g.random(4).tolist() for g in few] == [g.random(4).tolist() for g in many[:2]]


def test_no_two_samples_of_near_seeds_share_their_numbers() -> None:
    numbers = {g.random() for seed in range(30) for g in row_generators(seed, 30)}
    assert len(numbers) == 900


def test_arguments_are_left_as_they_were() -> None:
    logits, seen = random_rows(2, 9, 30)
    copies = logits.copy(), seen.copy()
    sample(logits, OPTIONS[-1], row_generators(0, 9), written_once(seen))
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(seen, copies[1])


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [("N907", math.nan, "nan for token 2 of row 1"), ("N907", math.inf, "inf for token 2 of row 1")],
)
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_refused(code: str, value: float, shown: str, temperature: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = value
    with pytest.raises(NeuralError, match=f"{code}: .*{shown}"):
        sample(logits, SamplingOptions(temperature=temperature), row_generators(0, 3))


def test_a_row_with_every_token_ruled_out_is_refused() -> None:
    logits = np.zeros((2, 4), np.float32)
    logits[1] = -math.inf
    with pytest.raises(NeuralError, match="N908: every token of row 1"):
        sample(logits, SamplingOptions(), row_generators(0, 2))


@pytest.mark.parametrize("size", [3, 3000])
@pytest.mark.parametrize("noise", [0.0, 1 - 2**-53])
def test_the_ends_of_the_noise_draw_only_tokens_that_are_left(noise: float, size: int) -> None:
    constant = SimpleNamespace(random=lambda size: np.full(size, noise))
    logits = np.full((1, size), -math.inf, np.float32)
    logits[0, 1] = 0
    assert draw(Narrowed(logits, None, size), [constant]).tolist() == [1]


@pytest.mark.parametrize("scale", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("left", [3, 101, 5000])
def test_the_race_is_the_same_among_few_and_among_all(left: int, scale: float) -> None:
    """That a filter leaves few tokens must not change which of them is drawn, nor what is drawn after it."""
    rng = np.random.default_rng(2)
    for generator, expecting in zip(row_generators(9, 40), row_generators(9, 40), strict=True):
        ids = np.sort(rng.permutation(5000)[:left])
        logits = rng.normal(0, scale, (1, left)).astype(np.float32)
        whole = np.full((1, 5000), -math.inf, np.float32)
        whole[:, ids] = logits
        expected = (softmax(whole) / -np.log(expecting.random(5000))).argmax(-1)
        assert draw(Narrowed(logits, ids, 5000), [generator]) == expected
        assert generator.random() == expecting.random()


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        *[("N901", {"temperature": value}) for value in (-0.1, math.nan, math.inf, -math.inf, "hot", None, True)],
        *[("N902", {"top_k": value}) for value in (0, -3, 2.5, "4", True, math.nan)],
        *[("N903", {"top_p": value}) for value in (0, -0.5, 1.01, math.nan, math.inf, "x")],
        *[("N904", {"min_p": value}) for value in (-0.01, 1.01, math.nan, "x")],
        *[("N905", {"repetition_penalty": value}) for value in (0, -1.2, math.nan, math.inf, None)],
        *[("N906", {"seed": value}) for value in (-1, 2**64, 1.5, None)],
        *[("N950", {"frequency_penalty": value}) for value in (math.nan, math.inf, "x", None)],
        *[("N950", {"presence_penalty": value}) for value in (-math.inf, True)],
        *[("N951", {"typical_p": value}) for value in (0, 1.1, math.nan, "x")],
    ],
    ids=repr,
)
def test_options_out_of_range_are_refused(code: str, wrong: dict) -> None:
    with pytest.raises(NeuralError) as error:
        SamplingOptions(**wrong)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == code
    assert repr(next(iter(wrong.values()))) in diagnostic.title
    assert diagnostic.hint
