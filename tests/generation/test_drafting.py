"""Drafting: no text changes, the distribution is the model's, and guesses of a like model are mostly right."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from neural.generation.drafting import DraftModel, LookUp
from neural.generation.engine import Engine
from neural.generation.options import SamplingOptions
from neural.generation.request import Limits, Request
from neural.generation.sampling import row_generator, sample
from neural.generation.torch_executor import TorchExecutor
from tests.generation.test_engine import CONTEXT, VOCAB_SIZE, ids, random_request, run


def near(model: nn.Module, distance: float) -> nn.Module:
    """A model whose weights are those of another, and noise."""
    other, rng = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += distance * weight.std() * torch.randn(weight.shape, generator=rng)
    return other


def executor(model: nn.Module, vocab_size: int = VOCAB_SIZE, context: int = CONTEXT, **limits: int) -> TorchExecutor:
    return TorchExecutor(model, Limits(**limits), context=context, vocab_size=vocab_size)


class Counting(DraftModel):
    """Counts guesses, and those that the text then had."""

    def __init__(self, executor: TorchExecutor) -> None:
        super().__init__(executor)
        self.guessed = self.right = 0
        self._last: dict[int, tuple[int, list[int]]] = {}

    def guess(self, rows, most):
        for row in rows:
            at, guess = self._last.pop(row.handle, (0, []))
            self.guessed += len(guess)
            new = row.ids[at:]
            self.right += next(
                (i for i, (a, b) in enumerate(zip(guess, new, strict=False)) if a != b), min(len(guess), len(new))
            )
        guesses = super().guess(rows, most)
        self._last = {row.handle: (len(row.ids), guess) for row, guess in zip(rows, guesses, strict=True)}
        return guesses


@pytest.mark.parametrize("distance", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("limits", [{"slots": 6}, {"slots": 4, "prefill_tokens": 5, "prefix_bytes": 1 << 20}], ids=len)
def test_a_draft_model_changes_no_text(model: nn.Module, distance: float, limits: dict[str, int]) -> None:
    rng = random.Random(8)
    requests = [random_request(rng) for _ in range(24)]
    expected = [ids(events) for events in run(Engine(executor(model, slots=8)), requests)]
    small = executor(near(model, distance), draft_tokens=4, **limits)
    drafted = Engine(executor(model, draft_tokens=4, **limits), DraftModel(small))
    assert [ids(events) for events in run(drafted, requests)] == expected
    assert run(drafted, requests[:2])[0][-1].finish_reason is not None  # and it is used again


def test_a_smaller_context_of_the_draft_model(model: nn.Module) -> None:
    requests = [Request((3, 1, 4, i), 90, SamplingOptions(seed=i)) for i in range(5)]
    expected = [ids(events) for events in run(Engine(executor(model)), requests)]
    drafted = Engine(
        executor(model, draft_tokens=3), DraftModel(executor(near(model, 0.1), context=20, draft_tokens=3))
    )
    assert [ids(events) for events in run(drafted, requests)] == expected


def test_the_same_model_guesses_all_and_takes_a_fifth_of_the_steps(model: nn.Module) -> None:
    drafter = Counting(executor(copy.deepcopy(model), slots=1, draft_tokens=4))
    engine = Engine(executor(model, slots=1, draft_tokens=4), drafter)
    engine.submit(Request((3, 1, 4), 41, SamplingOptions(temperature=0.8, seed=5)))
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    assert steps == 9  # the first token, and eight times five
    assert drafter.right == drafter.guessed > 0


@pytest.mark.parametrize("distance", [0.05, 0.15, 0.6])
def test_two_models_agree_as_often_as_the_bound_says(model: nn.Module, distance: float) -> None:
    """From the same random numbers, (1 - TV) / (1 + TV) of the time or more."""
    prompt, draws = torch.tensor([[3, 1, 4, 1, 5]]), 3000
    with torch.no_grad():
        large, small = (m(prompt)[:, -1] / 4 for m in (model, near(model, distance)))
    apart = (large.softmax(-1) - small.softmax(-1)).abs().sum().item() / 2
    large, small = large.numpy(), small.numpy()
    same = 0
    for seed in range(draws):
        drawn = (sample(logits, SamplingOptions(), [row_generator(seed, 0)]) for logits in (large, small))
        same += len({token.item() for token in drawn}) == 1
    bound = (1 - apart) / (1 + apart)
    assert 0.01 < apart < 0.99
    assert same / draws > bound - 4 * (bound * (1 - bound) / draws) ** 0.5


@pytest.mark.parametrize("kind", ["model", "look-up"])
def test_the_distribution_is_that_of_the_model(model: nn.Module, kind: str) -> None:
    """Chi-square of pairs of tokens over many seeds, against their exact probabilities."""
    words, prompt, seeds = tuple(range(5)), (1, 2, 3, 1, 2), 4000
    exact = {}
    with torch.no_grad():
        first = model(torch.tensor([prompt]))[0, -1, :5].double().mul(0.2).softmax(-1)
        for a in words:
            second = model(torch.tensor([[*prompt, a]]))[0, -1, :5].double().mul(0.2).softmax(-1)
            exact |= {(a, b): (first[a] * second[b]).item() for b in words}
    drafter = DraftModel(executor(near(model, 0.5), slots=128, draft_tokens=2)) if kind == "model" else LookUp()
    engine = Engine(executor(model, slots=128, draft_tokens=2), drafter)
    options = [SamplingOptions(temperature=5.0, allowed=words, seed=i) for i in range(seeds)]
    counts = dict.fromkeys(exact, 0)
    for events in run(engine, [Request(prompt, 2, o) for o in options]):
        counts[tuple(ids(events))] += 1
    expected = np.array([seeds * exact[pair] for pair in counts])
    enough = expected > 5
    squares = (np.array(list(counts.values())) - expected)[enough] ** 2 / expected[enough]
    assert enough.sum() >= 5
    freedom = enough.sum() - 1
    assert squares.sum() < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations
