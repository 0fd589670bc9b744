"""One mistake, one message: of a program that lacks a single token, next to nothing follows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import NeuralError, Severity
from neural.diagnostics.source import Source
from tests.properties.mutations import ROOT, TOKENS, TUTORIAL


def errors(text: str, name: Path) -> int:
    try:
        compile_source(Source(str(name), text))
    except NeuralError as error:
        return sum(d.severity is Severity.ERROR for d in error.diagnostics)
    return 0


@pytest.mark.parametrize(
    "name", [ROOT / "examples" / "gpt2.neural", TUTORIAL / "gpt_decoder.neural"], ids=lambda p: p.stem
)
def test_a_missing_token_is_one_mistake(name: Path) -> None:
    tokens = TOKENS.findall(name.read_text(encoding="utf-8"))
    solid = [i for i, token in enumerate(tokens) if not token.isspace() and not token.startswith("#")]
    counts = Counter(errors("".join(tokens[:i] + tokens[i + 1 :]), name) for i in solid)
    assert max(counts) <= 2
    assert counts[2] <= 0.02 * len(solid)
    assert counts[1] > 0.9 * len(solid)
