"""The decoder against recomputing every step without a cache, and against transformers' own generation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neural.diagnostics.diagnostic import NeuralError
from neural.generation import decoding
from neural.generation.decoding import BatchDecoder, evaluating, kept_tokens
from neural.generation.sampling import SamplingOptions, row_generators, sample
from tests.generation.huggingface import HuggingFaceGpt2

VOCAB_SIZE, CONTEXT = 257, 48
PROMPT = (3, 1, 4, 1, 5, 9, 2)
GREEDY = SamplingOptions(temperature=0)
SAMPLED = SamplingOptions(temperature=1.3, top_k=30, top_p=0.97, min_p=0.01, repetition_penalty=1.2, seed=4)


def decode(model: nn.Module, options: SamplingOptions, steps: int, *, prompt=PROMPT, num_samples=1) -> list[list[int]]:
    """One list of ids a sample."""
    decoder = BatchDecoder(model, prompt, options, context=CONTEXT, num_samples=num_samples, vocab_size=VOCAB_SIZE)
    return [list(ids) for ids in zip(*(decoder.step() for _ in range(steps)), strict=True)]


@torch.no_grad()
def recompute(model: nn.Module, options: SamplingOptions, steps: int, *, prompt=PROMPT, index: int = 0) -> list[int]:
    """The ids of sample `index`, each from a whole pass over the window, without a cache."""
    window, ids = list(prompt), []
    generator = row_generators(options.seed, index + 1)[index]
    for _ in range(steps):
        seen = torch.zeros(1, VOCAB_SIZE, dtype=torch.bool)
        seen[:, [*prompt, *ids]] = True
        ids.append(sample(model(torch.tensor([window]))[:, -1], options, [generator], seen).item())
        window.append(ids[-1])
        if len(window) > CONTEXT:
            window = window[-kept_tokens(CONTEXT) :]
    return ids


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", [PROMPT, (7,), tuple(range(CONTEXT))], ids=["some", "one", "full"])
@pytest.mark.parametrize("steps", [CONTEXT - len(PROMPT) + 1, 100], ids=["within", "sliding"])
def test_the_cache_changes_no_token(model: nn.Module, options: SamplingOptions, prompt: tuple, steps: int) -> None:
    (ids,) = decode(model, options, steps, prompt=prompt)
    assert ids == recompute(model, options, steps, prompt=prompt)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_the_prompt_may_be_read_in_chunks(model: nn.Module, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode(model, SAMPLED, 60)
    monkeypatch.setattr(decoding, "PREFILL_CHUNK", chunk)
    assert decode(model, SAMPLED, 60) == whole


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_transformers_greedy(penalty: float) -> None:
    model = HuggingFaceGpt2(VOCAB_SIZE, CONTEXT)
    steps = CONTEXT - len(PROMPT)
    expected = model.hf.generate(
        torch.tensor([PROMPT]), do_sample=False, max_new_tokens=steps, repetition_penalty=penalty, pad_token_id=0
    )
    (ids,) = decode(model, SamplingOptions(temperature=0, repetition_penalty=penalty), steps)
    assert ids == expected[0, len(PROMPT) :].tolist()
    assert len(set(ids)) > 3


def test_each_sample_is_the_same_alone_and_among_others(model: nn.Module) -> None:
    together = decode(model, SAMPLED, 60, num_samples=4)
    assert together == [recompute(model, SAMPLED, 60, index=index) for index in range(4)]
    assert together[:2] == decode(model, SAMPLED, 60, num_samples=2)
    assert len({tuple(ids) for ids in together}) == 4


def test_dropping_rows_leaves_the_others_as_they_were(model: nn.Module) -> None:
    whole = decode(model, SAMPLED, 50, num_samples=4)
    decoder = BatchDecoder(model, PROMPT, SAMPLED, context=CONTEXT, num_samples=4, vocab_size=VOCAB_SIZE)
    running = {index: [] for index in range(4)}
    for step in range(50):
        for ids, token in zip(running.values(), decoder.step(), strict=True):
            ids.append(token)
        for at, row, index in ((0, 1, 1), (20, 2, 3), (30, 0, 0)):
            if step == at:
                decoder.keep([other for other in range(len(running)) if other != row])
                assert running.pop(index) == whole[index][: step + 1]
    assert running == {2: whole[2]}


def test_ids_that_the_tokenizer_does_not_know_are_never_drawn(model: nn.Module) -> None:
    decoder = BatchDecoder(
        model, PROMPT, SamplingOptions(temperature=100), context=CONTEXT, num_samples=50, vocab_size=20
    )
    assert {token for _ in range(10) for token in decoder.step()} == set(range(20))


def test_a_model_that_knows_fewer_tokens_is_refused(model: nn.Module) -> None:
    with pytest.raises(NeuralError, match="N917: the model knows 257 tokens, and the tokenizer gives ids up to 257"):
        BatchDecoder(model, PROMPT, GREEDY, context=CONTEXT, num_samples=1, vocab_size=VOCAB_SIZE + 1)


@pytest.mark.parametrize(("context", "kept"), [(1, 1), (2, 1), (4, 3), (64, 48), (1024, 768)])
def test_three_quarters_of_the_window_stay(context: int, kept: int) -> None:
    assert kept_tokens(context) == kept


def test_sampling_leaves_the_global_random_numbers_alone(model: nn.Module) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    decode(model, SAMPLED, 5, num_samples=2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_for_the_while(training: bool) -> None:
    layer = nn.Dropout().train(training)
    with evaluating(layer):
        assert not layer.training
    assert layer.training is training
