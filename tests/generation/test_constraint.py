"""Constrained output: whatever the model would say, the answer is one of the list, matches, or is JSON of the schema."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from torch import nn

from neural.data.corpus import open_corpus
from neural.data.tokenizers import Tokenizer, load_tokenizer, train_bpe
from neural.diagnostics.diagnostic import NeuralError
from neural.generation.constraint import constrain
from neural.generation.generate import Sample, generate
from neural.generation.options import SamplingOptions
from neural.generation.request import FinishReason

CHARACTERS = "".join(map(chr, range(32, 127))) + "\né"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b c", "é"]}, "maxItems": 3},
        "ok": {"type": ["boolean", "null"]},
    },
    "required": ["name", "age", "ok"],
    "additionalProperties": False,
}
CHOICES = ["yes", "yes, but", "no", 'a "quoted" one', "back\\slash", "two\nlines", "é", "a|b"]
REGEX = r"-?[1-9][0-9]{0,5}(\.[0-9]{1,3})?( (km|m))?"


@pytest.fixture(scope="module", params=["bytes", "characters", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "bytes":
        return load_tokenizer("byte")
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text(CHARACTERS * 3 + ' {"name": "ab", "age": 12, "ok": true} yes no' * 20)
    corpus = open_corpus(str(folder / "corpus.txt"))
    return load_tokenizer("char", corpus=corpus) if request.param == "characters" else train_bpe(corpus, 257 + 40)


class Padded(nn.Module):
    """The model of 257 tokens for a vocabulary of up to twice as many."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids, past_key_values=None, position_ids=None):
        logits, cache = self.model(ids % 257, past_key_values=past_key_values, position_ids=position_ids)
        return logits.repeat(1, 1, 2), cache


def written(model: nn.Module, context: int, tokenizer: Tokenizer, most: int = 200, **given) -> list[Sample]:
    """Of hot and cold sampling, and greedy."""
    found = []
    for options in (SamplingOptions(temperature=50.0, seed=1), SamplingOptions(seed=2), SamplingOptions(temperature=0)):
        found += generate(
            Padded(model).eval(), tokenizer, "A", options, context=context, max_new_tokens=most, num_samples=4,
            constraint=constrain(tokenizer, **given),
        )  # fmt: skip
    assert all(s.finish_reason is not FinishReason.LENGTH for s in found)
    return found


def test_json_is_of_the_schema(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    for sample in written(model, context, tokenizer, json_schema=SCHEMA):
        jsonschema.validate(json.loads(sample.text), SCHEMA)


def test_a_regular_expression_matches_all_of_it(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    for sample in written(model, context, tokenizer, regex=REGEX):
        assert re.fullmatch(REGEX, sample.text)


def test_one_of_the_choices(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    found = {sample.text for sample in written(model, context, tokenizer, choices=CHOICES)}
    assert found <= {*CHOICES}
    assert len(found) > 2


def test_each_choice_can_be_written(model: nn.Module, context: int, tokenizer: Tokenizer) -> None:
    for choice in CHOICES:
        assert {sample.text for sample in written(model, context, tokenizer, choices=[choice])} == {choice}


def test_what_is_cut_at_the_limit_says_so(model: nn.Module, context: int) -> None:
    byte = load_tokenizer("byte")
    (sample,) = generate(
        model, byte, "A", context=context, max_new_tokens=9, constraint=constrain(byte, regex="[ab]{20}")
    )
    assert sample.finish_reason is FinishReason.LENGTH
    assert re.fullmatch("[ab]{9}", sample.text)


def test_a_text_that_may_end_or_go_on_ends_by_the_models_own_end(model: nn.Module, context: int) -> None:
    byte = load_tokenizer("byte")
    options = SamplingOptions(temperature=50.0, seed=1)
    samples = generate(
        model,
        byte,
        "A",
        options,
        context=context,
        max_new_tokens=30,
        num_samples=20,
        constraint=constrain(byte, regex="a+"),
    )
    assert {s.finish_reason for s in samples} == {FinishReason.END_OF_TEXT}
    assert all(re.fullmatch("a+", s.text) and s.ids[-1] == byte.eot_id for s in samples)


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("N981", {"regex": "a(("}),
        ("N981", {"regex": "(?=a)b"}),
        ("N982", {"json_schema": "{"}),
        ("N982", {"json_schema": "[]"}),
        ("N982", {"json_schema": {"type": "frog"}}),
        ("N982", {"json_schema": {"not": {"type": "string"}}}),
        ("N985", {"choices": []}),
        ("N985", {"choices": ["a", ""]}),
        ("N985", {"choices": ["a"], "regex": "a"}),
    ],
)
def test_what_is_refused(code: str, given: dict) -> None:
    with pytest.raises(NeuralError, match=code):
        constrain(load_tokenizer("byte"), **given)


def test_characters_that_the_vocabulary_lacks(model: nn.Module, context: int, tmp_path) -> None:
    (tmp_path / "corpus.txt").write_text("to be or not")
    characters = load_tokenizer("char", corpus=open_corpus(str(tmp_path / "corpus.txt")))
    with pytest.raises(NeuralError, match="N983"):
        constrain(characters, choices=["{}"])
    halfway = constrain(characters, choices=["be{", "be}"])
    with pytest.raises(NeuralError, match="N983"):
        generate(Padded(model).eval(), characters, "to", context=context, max_new_tokens=9, constraint=halfway)
