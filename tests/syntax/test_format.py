"""The formatter: canonical, idempotent, and true to meaning and comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neural.syntax.format import WIDTH, format_file
from tests.syntax.shapes import comments, read, shape
from tests.syntax.trees import files, spread, tokens

TUTORIAL = sorted((Path(__file__).parents[1] / "fixtures" / "tutorial").glob("*.neural"))
SLOW = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@SLOW
@given(files)
def test_what_is_written_reads_back(file) -> None:
    text = format_file(file)
    assert shape(read(text)) == shape(file)
    assert format_file(read(text)) == text


@SLOW
@given(st.data())
def test_layout_and_comments_mean_nothing_and_survive(data) -> None:
    tree = data.draw(files)
    file = read(data.draw(spread(format_file(tree))))
    assert shape(file) == shape(tree)
    text = format_file(file)
    again = read(text)
    assert shape(again) == shape(tree)
    assert comments(again) == comments(file)
    assert format_file(again) == text


@SLOW
@given(files)
def test_a_file_means_the_same_on_one_line(file) -> None:
    assert shape(read(" ".join(tokens(format_file(file))))) == shape(file)


@pytest.mark.parametrize("path", TUTORIAL, ids=lambda p: p.stem)
def test_the_tutorial_is_canonical_but_for_blanks_at_line_ends(path: Path) -> None:
    text = path.read_text()
    assert format_file(read(text)) == "\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n"


ROWS = {
    "spaces": ("param a=1   param  b = 2", "param a = 1\nparam b = 2\n"),
    "blank lines": (
        "param a = 1\n\n\n\nparam b = 2\ndefine X(){}\nparam c = 3",
        "param a = 1\n\nparam b = 2\n\ndefine X() {}\n\nparam c = 3\n",
    ),
    "quotes": (
        "import 'a'\nimport 'say \"x\"'\nimport 'it\\'s'",
        "import \"a\"\nimport 'say \"x\"'\nimport 'it\\'s'\n",
    ),
    "numbers as written": ("param a = [1_000, 1e-5, .5, 2.]", "param a = [1_000, 1e-5, .5, 2.]\n"),
    "words": ("param a = [True, False, None]", "param a = [true, false, none]\n"),
    "parentheses": ("param a = ((1 + 2)) * (3) - (4 * 5)", "param a = (1 + 2) * 3 - 4 * 5\n"),
    "powers": ("param a = (-2) ** 2 ** -(1)", "param a = (-2) ** 2 ** -1\n"),
    "left and right": (
        "param a = 1 - (2 - 3) + ((4 ** 5) ** 6)",
        "param a = 1 - (2 - 3) + (4 ** 5) ** 6\n",
    ),
    "tuples": ("param a = [(1,), (1, 2,), (), []]", "param a = [(1,), (1, 2), (), []]\n"),
    "section on one line": (
        "network N{train{a:1,b:2}}",
        "network N {\n  train { a: 1  b: 2 }\n}\n",
    ),
    "section on lines": (
        "network N{train:{a:1\nb:2}}",
        "network N {\n  train {\n    a: 1\n    b: 2\n  }\n}\n",
    ),
    "inputs": (
        "network N{input:{a:(1,) b:(2,)}}",
        "network N {\n  input: { a: (1,), b: (2,) }\n}\n",
    ),
    "statements": (
        "define X(a,b=1){y=Dense($a)*2 Residual{Y()}*(1+2) Residual(){} Z(){A()}}",
        "define X(a, b = 1) {\n  y = Dense($a) * 2\n  Residual {\n    Y()\n  } * (1 + 2)\n  Residual {}\n"
        "  Z() {\n    A()\n  }\n}\n",
    ),
    "empty file": ("\n\n", ""),
    "only a comment": ("\n# a\n\n\n// b", "# a\n\n// b\n"),
    "byte order mark": ("\ufeffparam a = 1", "param a = 1\n"),
    "line ends of Windows": ("param a = 1 # x\r\n/* y\r\nz */\r\n", "param a = 1  # x\n/* y\nz */\n"),
    "comment behind an opening brace": ("define X() { # x\nA() }", "define X() {  # x\n  A()\n}\n"),
    "comment between arguments": (
        "network N { loss: F(1, # one\n2) }",
        "network N {\n  loss: F(\n    1,  # one\n    2,\n  )\n}\n",
    ),
    "comment in a sum": (
        "param a = 1 + /* why */ 2",
        "/* why */\nparam a = 1 + 2\n",
    ),
    "comment at the end of layers": (
        "network N {\n  layers:\n    A()\n    # of layers\n  # of loss\n  loss: x\n  # last\n}",
        "network N {\n  layers:\n    A()\n    # of layers\n  # of loss\n  loss: x\n  # last\n}\n",
    ),
    "comment in empty layers": (
        "network N { layers: # none yet\n loss: x }",
        "network N {\n  layers:  # none yet\n  loss: x\n}\n",
    ),
    "comment before the first statement": (
        "network N {\n  layers:\n    # first\n    A()\n}",
        "network N {\n  layers:\n    # first\n    A()\n}\n",
    ),
}


@pytest.mark.parametrize(("written", "canonical"), ROWS.values(), ids=ROWS)
def test_style(written: str, canonical: str) -> None:
    assert format_file(read(written)) == canonical
    assert format_file(read(canonical)) == canonical


def test_long_lists_are_broken_and_short_ones_joined() -> None:
    long = "network N { layers: Dense(" + ", ".join(f"argument_{i}={i}" for i in range(9)) + ",\n) * 2 }"
    text = format_file(read(long))
    assert "    Dense(\n      argument_0=0,\n" in text and "      argument_8=8,\n    ) * 2\n" in text
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    assert format_file(read("param a = [\n1,\n2,\n]")) == "param a = [1, 2]\n"


@pytest.mark.parametrize("width", [WIDTH, WIDTH + 1])
def test_a_line_of_just_the_width_stays(width: int) -> None:
    head = "param a = [1, "
    text = head + "9" * (width - len(head) - 1) + "]"
    assert (format_file(read(text)) == text + "\n") == (width == WIDTH)
