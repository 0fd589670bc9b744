"""No text makes the parser, the renderer or the formatter fail, and nothing but a program passes for one."""

from __future__ import annotations

from random import Random

import pytest

from neural.diagnostics.render import apply_fixes, render, to_json
from neural.diagnostics.source import Source
from neural.syntax.format import format_file
from neural.syntax.parser import parse
from tests.syntax.mutations import mutated, noise
from tests.syntax.shapes import comments, read, shape


def check(text: str) -> None:
    file, messages = parse(Source("test.neural", text))
    assert "\x1b" not in render(messages, color=False)
    assert len(to_json(messages)) == len(messages)
    for message in messages:
        assert message.primary is None or 0 <= message.primary.span.start <= message.primary.span.end <= len(text)
        if message.fix:
            parse(Source("test.neural", apply_fixes(text, [message.fix])))
    if not messages:
        again = format_file(file)
        assert shape(read(again)) == shape(file)
        assert comments(read(again)) == comments(file)


@pytest.mark.parametrize("seed", range(20))
def test_slips(seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        check(mutated(random))


@pytest.mark.parametrize("seed", range(4))
def test_noise(seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        check(noise(random))
