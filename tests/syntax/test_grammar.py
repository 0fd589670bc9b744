"""The parser agrees with docs/grammar.lark, an independent description: on what is a program, and on its tree."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neural.diagnostics.source import Source
from neural.syntax.format import format_file
from neural.syntax.parser import parse
from tests.syntax.mutations import PROGRAMS, STRAY, mutated
from tests.syntax.reference import accepts, reference_shape
from tests.syntax.shapes import shape
from tests.syntax.trees import files, spread, tokens

BEYOND_THE_GRAMMAR = {"N116", "N117", "N119", "N125"}
SLOW = settings(max_examples=100, suppress_health_check=list(HealthCheck))


def agree(text: str) -> None:
    file, messages = parse(Source("test.neural", text))
    codes = {d.code for d in messages}
    if codes and codes <= BEYOND_THE_GRAMMAR:
        return
    assert accepts(text) == (not codes), (codes, text)
    if not codes:
        assert shape(file) == reference_shape(text), text


@pytest.mark.parametrize("text", PROGRAMS)
def test_the_tutorial(text: str) -> None:
    agree(text)


@SLOW
@given(files)
def test_random_programs(file) -> None:
    agree(format_file(file))


@SLOW
@given(st.data())
def test_random_layout(data) -> None:
    agree(data.draw(spread(format_file(data.draw(files)))))


@pytest.mark.parametrize("seed", range(30))
def test_slips(seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        agree(mutated(random))


@SLOW
@given(files, st.randoms(use_true_random=False))
def test_random_programs_with_a_token_too_many_or_too_few(file, random) -> None:
    words = tokens(format_file(file))
    at = random.randrange(len(words) + 1)
    if random.random() < 0.5 and at < len(words):
        del words[at]
    else:
        words.insert(at, random.choice([*words, *STRAY]))
    agree(" ".join(words))
