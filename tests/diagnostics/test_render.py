"""How messages are drawn, and what they are to tools."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural.diagnostics.diagnostic import Diagnostic, Edit, Fix, Label, Severity
from neural.diagnostics.render import WIDTH, apply_fixes, render, summary, to_json
from neural.diagnostics.source import Source, Span
from tests.diagnostics.drawings import DRAWINGS, PROGRAM, place

GOLDEN = Path(__file__).parent / "golden"
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def golden() -> dict[Path, str]:
    """What `make golden` writes."""
    return {GOLDEN / f"{name}.txt": render(messages, color=False) for name, messages in DRAWINGS.items()}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing(name: str) -> None:
    assert render(DRAWINGS[name], color=False) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DRAWINGS)
def test_color_changes_nothing_but_the_color(name: str) -> None:
    colored = render(DRAWINGS[name], color=True)
    bare = re.sub(r" +$", "", COLOR.sub("", colored), flags=re.MULTILINE)
    assert bare == render(DRAWINGS[name], color=False)
    assert colored.count("\x1b") == len(COLOR.findall(colored))


def test_golden_holds_nothing_else() -> None:
    assert {p.stem for p in GOLDEN.iterdir()} == set(DRAWINGS)


@pytest.mark.parametrize(
    ("severity", "color"), [(Severity.ERROR, "31"), (Severity.WARNING, "33"), (Severity.NOTE, "32")]
)
def test_colors(severity: Severity, color: str) -> None:
    message = Diagnostic("N101", "title", Label(place("768"), "label"), severity=severity)
    text = render([message], color=True)
    assert f"\x1b[1;{color}m{severity.value}[N101]\x1b[0m" in text
    assert f"\x1b[1;{color}m^^^\x1b[0m \x1b[1;{color}mlabel\x1b[0m" in text


@settings(max_examples=300)
@given(st.text(), st.integers(0, 60), st.integers(0, 60), st.text(max_size=9), st.integers(0, 60))
def test_any_text_is_drawn_safely(text: str, start: int, length: int, label: str, other: int) -> None:
    start, other = min(start, len(text)), min(other, len(text))
    source = Source(text[:5], text)
    primary = Label(Span(source, start, min(len(text), start + length)), label)
    message = Diagnostic("N101", text, primary, (Label(Span(source, other, other), label),), (text,), text)
    drawn = render([message], color=False)
    assert not [c for c in drawn if unicodedata.category(c) == "Cc" and c != "\n"]
    assert "^" in drawn


def test_long_lines_are_cut() -> None:
    lines = [line for line in render(DRAWINGS["long_line"], color=False).split("\n") if line.startswith("1 |")]
    assert len(lines) == 4 and all(len(line) <= len("1 | ") + WIDTH + 2 for line in lines)


def test_json() -> None:
    (message,) = to_json(DRAWINGS["everything"])
    assert json.loads(json.dumps(message)) == {
        "code": "N402",
        "severity": "error",
        "title": "768 cannot be split among 7 heads",
        "file": "model.neural",
        "start": {"line": 12, "column": 21, "offset": PROGRAM.text.index("7, d_model")},
        "end": {"line": 12, "column": 22, "offset": PROGRAM.text.index("7, d_model") + 1},
        "label": "7 heads",
        "secondary": [
            {
                "file": "model.neural",
                "start": {"line": 1, "column": 17, "offset": 16},
                "end": {"line": 1, "column": 20, "offset": 19},
                "label": "the width",
            },
            {
                "file": "model.neural",
                "start": {"line": 4, "column": 13, "offset": PROGRAM.text.index("num_heads=$")},
                "end": {"line": 4, "column": 33, "offset": PROGRAM.text.index("num_heads=$") + 20},
                "label": "used here",
            },
        ],
        "notes": ["768 / 7 leaves a remainder of 5", "widths are a multiple of the heads\nas in every paper"],
        "hint": "choose 6, 8 or 12 heads",
        "fix": {
            "title": "write `num_heads=8`",
            "safe": True,
            "edits": [
                {
                    "file": "model.neural",
                    "start": {"line": 12, "column": 21, "offset": PROGRAM.text.index("7, d_model")},
                    "end": {"line": 12, "column": 22, "offset": PROGRAM.text.index("7, d_model") + 1},
                    "replacement": "8",
                }
            ],
        },
    }


def test_json_without_a_place() -> None:
    (message,) = to_json(DRAWINGS["no_place"])
    assert message["file"] is message["start"] is message["end"] is message["fix"] is None
    assert message["secondary"] == message["notes"] == []


@pytest.mark.parametrize(
    ("errors", "warnings", "notes", "expected"),
    [
        (0, 0, 0, ""),
        (1, 0, 0, "1 error"),
        (2, 1, 0, "2 errors, 1 warning"),
        (0, 2, 1, "2 warnings, 1 note"),
        (1, 1, 3, "1 error, 1 warning, 3 notes"),
    ],
)
def test_summary(errors: int, warnings: int, notes: int, expected: str) -> None:
    message = Diagnostic("N101", "title")
    counts = ((errors, Severity.ERROR), (warnings, Severity.WARNING), (notes, Severity.NOTE))
    assert summary([replace(message, severity=s) for n, s in counts for _ in range(n)]) == expected


def fix(*edits: tuple[int, int, str]) -> Fix:
    source = Source("x", "0123456789")
    return Fix("mend", tuple(Edit(Span(source, a, b), text) for a, b, text in edits))


@pytest.mark.parametrize(
    ("fixes", "expected"),
    [
        ([], "0123456789"),
        ([fix((0, 1, "a"))], "a123456789"),
        ([fix((9, 10, "")), fix((0, 1, ""))], "12345678"),
        ([fix((2, 4, "x"), (6, 6, "y"))], "01x45y6789"),
        ([fix((2, 5, "x")), fix((4, 6, "y"))], "01x56789"),
        ([fix((2, 5, "x")), fix((4, 6, "y"), (8, 9, "z"))], "01x56789"),
        ([fix((2, 2, ",")), fix((2, 2, ","))], "01,23456789"),
        ([fix((2, 2, ",")), fix((2, 4, "x"))], "01,x456789"),
        ([fix((2, 4, "x")), fix((4, 6, "y"))], "01xy6789"),
    ],
)
def test_fixes(fixes: list[Fix], expected: str) -> None:
    assert apply_fixes("0123456789", fixes) == expected
