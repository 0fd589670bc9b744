"""Stop strings: found whatever the pieces, never shown, and nothing lost."""

from __future__ import annotations

import random

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.generation.stopping import StopStrings


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first, found by adding one character at a time."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def pushed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += matcher.push(piece)
        if matcher.found:
            return shown, True
    return shown + matcher.flush(), False


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        (["one\n", "\ntwo"], ["\n\n"], ["one", ""]),
        (["a", "b", "c"], ["abc"], ["", "", ""]),
        (["a", "b", "x"], ["abc"], ["", "", "abx"]),
        (["aab"], ["ab"], ["a"]),
        (["aa", "ab"], ["aab"], ["", "a"]),
        (["abc"], ["abc", "b"], ["a"]),
        (["ab", "c"], ["abc", "b"], ["a"]),
        (["xabc"], ["abc", "bc"], ["x"]),
        (["né", "e"], ["ée"], ["n", ""]),
        (["plain ", "text"], [], ["plain ", "text"]),
    ],
)
def test_each_piece(pieces: list[str], stops: list[str], shown: list[str]) -> None:
    matcher = StopStrings(stops)
    assert [matcher.push(piece) for piece in pieces[: len(shown)]] == shown


@pytest.mark.parametrize("seed", range(300))
def test_the_result_does_not_depend_on_the_pieces(seed: int) -> None:
    rng = random.Random(seed)
    stops = ["".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
    text = "".join(rng.choices("abcd", k=rng.randint(0, 30)))
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert pushed(pieces, stops) == pushed(list(text), stops) == cut(text, stops)


def test_text_is_held_back_no_longer_than_needed() -> None:
    matcher = StopStrings(["</answer>", "\n\n"])
    assert [matcher.push(piece) for piece in ["x <", "b", "/an", "\n", "y"]] == ["x ", "<b", "/an", "", "\ny"]


def test_thousands_of_stop_strings() -> None:
    stops = [f"<{number}>" for number in range(5000)]
    assert pushed([*"text <4999", "> more"], stops) == ("text ", True)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(NeuralError, match="N914"):
        StopStrings(["a", ""])
