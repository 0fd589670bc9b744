"""Beam search against transformers', and against trying every text."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from neural.diagnostics.diagnostic import NeuralError
from neural.generation.beams import beam_search
from neural.generation.request import Limits
from neural.generation.torch_executor import TorchExecutor
from tests.generation.huggingface import HuggingFaceGpt2

VOCAB_SIZE, CONTEXT = 257, 48
PROMPT = (3, 1, 4, 1, 5)


def search(model: nn.Module, vocab_size: int = VOCAB_SIZE, **given):
    given = {"prompt": PROMPT, "max_new_tokens": 12, "beams": 4, **given}
    limits = Limits(slots=min(max(given["beams"], 1), 256))
    return beam_search(TorchExecutor(model, limits, context=CONTEXT, vocab_size=vocab_size), **given)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("ends", [frozenset(), frozenset({7}), frozenset(range(0, 257, 5))], ids=len)
def test_as_transformers(beams: int, length_penalty: float, ends: frozenset[int]) -> None:
    model = HuggingFaceGpt2(VOCAB_SIZE, CONTEXT)
    found = search(model, beams=beams, n_best=beams, length_penalty=length_penalty, ends=ends)
    if beams == 1:
        with torch.no_grad():
            text = list(PROMPT)
            while len(text) < len(PROMPT) + len(found[0].ids):
                text.append(model(torch.tensor([text]))[0, -1].argmax().item())
        assert found[0].ids == tuple(text[len(PROMPT) :])
        return
    theirs = model.hf.generate(
        torch.tensor([PROMPT]), num_beams=beams, num_return_sequences=beams, do_sample=False, max_new_tokens=12,
        length_penalty=length_penalty, early_stopping=False, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True, eos_token_id=sorted(ends) or None,
    )  # fmt: skip
    for ours, ids, score in zip(found, theirs.sequences.tolist(), theirs.sequences_scores.tolist(), strict=True):
        assert list(ours.ids) == ids[len(PROMPT) : len(PROMPT) + len(ours.ids)]
        assert not any(ids[len(PROMPT) + len(ours.ids) :])
        assert ours.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_wide_beams_find_the_best_of_all_texts(model: nn.Module, length_penalty: float) -> None:
    """With 6 tokens and three places, 256 beams are every text."""
    vocab_size, ends = 6, frozenset({5})
    texts = [t for n in (1, 2, 3) for t in itertools.product(range(5), repeat=n - 1) for t in ((*t, 5),)]
    texts += list(itertools.product(range(5), repeat=3))
    scores = {}
    for text in texts:
        with torch.no_grad():
            logits = model(torch.tensor([[*PROMPT, *text]]))[0, len(PROMPT) - 1 : -1, :vocab_size]
        logprobs = logits.double().log_softmax(-1)
        scores[text] = (
            math.fsum(row[t].item() for row, t in zip(logprobs, text, strict=True)) / len(text) ** length_penalty
        )
    found = search(model, vocab_size, beams=200, n_best=5, max_new_tokens=3, ends=ends, length_penalty=length_penalty)
    expected = sorted(scores, key=lambda t: -scores[t])[:5]
    assert [beam.ids for beam in found] == expected
    for beam in found:
        assert beam.score == pytest.approx(scores[beam.ids], abs=1e-5)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("N964", {"beams": 0}),
        ("N964", {"beams": 10**6}),
        ("N964", {"n_best": 0}),
        ("N964", {"n_best": 5}),
        ("N964", {"length_penalty": math.nan}),
        ("N964", {"max_new_tokens": 0}),
        ("N911", {"max_new_tokens": 45}),
    ],
    ids=repr,
)
def test_what_is_refused(model: nn.Module, code: str, wrong: dict) -> None:
    with pytest.raises(NeuralError, match=code):
        search(model, **wrong)
