"""Text from a compiled model: stop strings, ends, streaming, several samples, prompts that are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from neural.data.corpus import open_corpus
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.generation.executor import Opener
from neural.generation.generate import Continuation, FinishReason, Generation, Sample, generate
from neural.generation.options import SamplingOptions
from neural.generation.torch_executor import TorchExecutor

OPTIONS = SamplingOptions(temperature=0.9, top_p=0.98, seed=3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("byte")


def opener(model: nn.Module, tokenizer: Tokenizer, context: int) -> Opener:
    return partial(TorchExecutor, model, context=context, vocab_size=tokenizer.vocab_size)


def continued(tokenizer: Tokenizer, text: str, *, stop: tuple[str, ...] = (), max_new_tokens: int = 1000) -> tuple:
    """The pieces and the sample that come of a model which writes `text`, or as much of it as is read."""
    continuation = Continuation(tokenizer, stop, max_new_tokens)
    pieces = []
    for token in [*tokenizer.encode(text), tokenizer.eot_id]:
        pieces.append(continuation.push(token))
        if continuation.finish_reason is not None:
            return pieces, continuation.sample
    return pieces, continuation.sample


def test_a_character_comes_when_its_last_byte_does(tokenizer: Tokenizer) -> None:
    pieces, sample = continued(tokenizer, "né€😀")
    assert pieces == ["n", "", "é", "", "", "€", "", "", "", "😀", ""]
    assert sample == Sample("né€😀", (*"né€😀".encode(), 256), FinishReason.END_OF_TEXT)


@pytest.mark.parametrize(
    ("text", "stop", "max_new_tokens", "expected"),
    [
        ("one\n\ntwo", ("\n\n",), 99, ("one", 5, "stop")),
        ("one\n\ntwo", ("\n\n",), 4, ("one\n", 4, "length")),
        ("one\n\ntwo", ("\n\n",), 5, ("one", 5, "stop")),
        ("one\n", ("\n\n",), 99, ("one\n", 5, "end_of_text")),
        ("price: 3€!", ("€", "!"), 99, ("price: 3", 11, "stop")),
        ("3€", (), 2, ("3\ufffd", 2, "length")),
        ("3€", ("\ufffd",), 2, ("3", 2, "stop")),
        ("", (), 99, ("", 1, "end_of_text")),
    ],
)
def test_where_a_text_ends(
    tokenizer: Tokenizer, text: str, stop: tuple[str, ...], max_new_tokens: int, expected: tuple
) -> None:
    pieces, sample = continued(tokenizer, text, stop=stop, max_new_tokens=max_new_tokens)
    assert (sample.text, len(sample.ids), sample.finish_reason) == expected
    assert "".join(pieces) == sample.text


def test_gpt2_words_stop_in_the_middle_of_a_token() -> None:
    gpt2 = load_tokenizer("gpt2")
    _, sample = continued(gpt2, "Tomorrow, and tomorrow, and tomorrow", stop=("morrow, and t",))
    assert sample.text == "To"
    assert gpt2.decode(sample.ids).startswith("Tomorrow, and t")


def test_nothing_of_a_token_follows_the_stop_string() -> None:
    gpt2 = load_tokenizer("gpt2")
    assert gpt2.bytes_of(gpt2.encode(" “")[0]) == b" \xe2\x80"
    assert continued(gpt2, " “", stop=(" ",), max_new_tokens=1)[1].text == ""


def text_of(ids: tuple[int, ...], tokenizer: Tokenizer) -> str:
    return tokenizer.decode([token for token in ids if token != tokenizer.eot_id])


@pytest.mark.parametrize("options", [OPTIONS, SamplingOptions(temperature=0)], ids=["sampled", "greedy"])
@pytest.mark.parametrize("max_new_tokens", [0, 1, 20, 200], ids=lambda n: f"{n}-tokens")
def test_the_pieces_joined_are_the_text(
    model: nn.Module, context: int, tokenizer: Tokenizer, options: SamplingOptions, max_new_tokens: int
) -> None:
    arguments = {"context": context, "max_new_tokens": max_new_tokens}
    streaming = Generation(opener(model, tokenizer, context), tokenizer, "ROMEO:", options, **arguments)
    pieces = [piece for (piece,) in streaming]
    (whole,) = generate(model, tokenizer, "ROMEO:", options, **arguments)
    assert streaming.samples == (whole,)
    assert "".join(pieces) == whole.text == text_of(whole.ids, tokenizer)
    assert len(whole.ids) == streaming.n_tokens <= max_new_tokens
    assert whole.finish_reason is not None


def test_the_same_seed_gives_the_same_text_and_another_another(
    model: nn.Module, context: int, tokenizer: Tokenizer
) -> None:
    def text(seed: int) -> str:
        options = replace(OPTIONS, seed=seed)
        return generate(model, tokenizer, "A", options, context=context, max_new_tokens=40)[0].text

    assert text(1) == text(1) != text(2)


def test_samples_of_a_batch_end_on_their_own_and_equal_those_alone(
    model: nn.Module, context: int, tokenizer: Tokenizer
) -> None:
    """At a high temperature some of 24 samples meet end-of-text, some a stop string, and some neither."""
    options = SamplingOptions(temperature=50, seed=6)
    arguments = {"context": context, "max_new_tokens": 150, "stop": ("a", "bb")}
    many = generate(model, tokenizer, "To be", options, num_samples=24, **arguments)
    assert {sample.finish_reason for sample in many} == set(FinishReason)
    for sample in many:
        assert "a" not in sample.text
        if sample.finish_reason is FinishReason.END_OF_TEXT:
            assert sample.ids[-1] == tokenizer.eot_id
            assert sample.text == text_of(sample.ids, tokenizer)
    for count in (1, 5):
        assert generate(model, tokenizer, "To be", options, num_samples=count, **arguments) == many[:count]


def test_a_stop_string_taken_from_the_text_cuts_it_there(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    arguments = {"context": context, "max_new_tokens": 120}
    (whole,) = generate(model, tokenizer, "A", OPTIONS, **arguments)
    stop = whole.text[30:34]
    (cut,) = generate(model, tokenizer, "A", OPTIONS, stop=(stop,), **arguments)
    assert cut.finish_reason is FinishReason.STOP
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert whole.ids[: len(cut.ids)] == cut.ids


def test_the_prompt_is_not_searched_for_stop_strings(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    (sample,) = generate(model, tokenizer, "stop", OPTIONS, context=context, max_new_tokens=5, stop=("stop",))
    assert len(sample.ids) == 5


def test_an_empty_prompt_starts_from_end_of_text(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    (sample,) = generate(model, tokenizer, "", SamplingOptions(temperature=0), context=context, max_new_tokens=1)
    with torch.no_grad():
        assert sample.ids[0] == model(torch.tensor([[tokenizer.eot_id]]))[0, -1].argmax().item()


def test_truncating_uses_the_newest_part_of_the_prompt(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    prompt = "".join(chr(65 + i % 26) for i in range(3 * context))
    arguments = {"context": context, "max_new_tokens": 9}
    assert generate(model, tokenizer, prompt, OPTIONS, truncate="left", **arguments) == generate(
        model, tokenizer, prompt[-context:], OPTIONS, **arguments
    )


@pytest.mark.parametrize(
    ("code", "shown", "arguments"),
    [
        ("N911", "the prompt is 500 tokens long, and the model's context is ", {"prompt": "x" * 500}),
        ("N912", "-1 new tokens", {"max_new_tokens": -1}),
        ("N913", "0 samples", {"num_samples": 0}),
        ("N914", "empty", {"stop": ("",)}),
    ],
)
def test_what_is_refused_before_anything_is_written(
    model: nn.Module, context: int, tokenizer: Tokenizer, code: str, shown: str, arguments: dict
) -> None:
    arguments = {"prompt": "A", "max_new_tokens": 5, "context": context, **arguments}
    with pytest.raises(NeuralError, match=f"{code}: .*{shown}"):
        Generation(opener(model, tokenizer, context), tokenizer, arguments.pop("prompt"), **arguments)


def test_an_empty_prompt_without_end_of_text_is_refused(model: nn.Module, context: int, tmp_path) -> None:
    (tmp_path / "corpus.txt").write_text("to be or not")
    characters = load_tokenizer("char", corpus=open_corpus(str(tmp_path / "corpus.txt")))
    with pytest.raises(NeuralError, match="N910: the prompt is empty") as error:
        generate(model, characters, "", context=context, max_new_tokens=5)
    assert "--prompt" in error.value.diagnostics[0].hint


def test_a_model_that_went_wrong_is_refused_and_left_as_it_was(
    model: nn.Module, context: int, tokenizer: Tokenizer
) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    try:
        with torch.no_grad():
            next(model.parameters()).fill_(math.nan)
        with pytest.raises(NeuralError, match="N907: the model's logits are not finite"):
            generate(model, tokenizer, "A", context=context, max_new_tokens=5)
        assert model.training
    finally:
        model.load_state_dict(weights)
        model.eval()
