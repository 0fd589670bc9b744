"""Every code has its page, and the pages of syntax show what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neural.diagnostics.pages import codes, page, title
from neural.diagnostics.source import Source
from neural.syntax.parser import parse

PACKAGE = Path(__file__).parents[2] / "neural"
SYNTAX = [code for code in codes() if code.startswith("N1") and "```neural" in (page(code) or "")]


def blocks(code: str) -> dict[str, str]:
    """The programs of a page, by their headings."""
    return dict(re.findall(r"^## (\w+)\n\n```neural\n(.*?)```", page(code) or "", re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("code", SYNTAX)
def test_wrong_is_this_mistake_and_right_is_none(code: str) -> None:
    shown = blocks(code)
    assert {d.code for d in parse(Source("wrong.neural", shown["Wrong"]))[1]} == {code}
    assert parse(Source("right.neural", shown["Right"]))[1] == []


@pytest.mark.parametrize("code", codes())
def test_a_page_begins_with_its_code_and_a_title(code: str) -> None:
    first, empty, prose = (page(code) or "").split("\n")[:3]
    assert first == f"# {code}: {title(code)}" and not empty and prose
    assert title(code) and not (title(code) or "").endswith(".")


def test_all_codes_of_syntax_have_a_page() -> None:
    used = {c for p in (PACKAGE / "syntax").glob("*.py") for c in re.findall(r'"(N\d{3})"', p.read_text())}
    assert used and used == {code for code in codes() if code.startswith("N1")}


def test_an_unknown_code_has_no_page() -> None:
    assert page("N000") is None
    assert page("../pages/N101") is None
    assert title("N000") is None
