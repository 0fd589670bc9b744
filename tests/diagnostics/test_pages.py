"""The page of each code: it is there, it is used, and its programs do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import Diagnostic, NeuralError, Severity
from neural.diagnostics.pages import FOLDER, codes, page, title
from neural.diagnostics.source import Source

PACKAGE = FOLDER.parents[1]
BLOCK = re.compile(r"^## (Wrong|Right)\n\n```neural\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = [code for code in codes() if "```neural" in page(code)]


def used() -> set[str]:
    """The codes that the package's source names."""
    files = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    return {code for text in files for code in re.findall(r"[\"'](N\d{3})[\"']", text)}


def test_every_code_has_a_page_and_every_page_a_use() -> None:
    assert set(codes()) == used()


@pytest.mark.parametrize("code", codes())
def test_a_page_has_a_title_and_says_something(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: ")
    assert title(code)
    assert not title(code).endswith(".")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len(prose.split()) > 15
    assert max(map(len, prose.splitlines())) <= 130


@pytest.mark.parametrize("code", codes())
def test_a_page_has_a_wrong_and_a_right_program_or_a_console(code: str) -> None:
    kinds = [kind for kind, _ in BLOCK.findall(page(code))]
    assert kinds == ["Wrong", "Right"] or (not kinds and "```console" in page(code))


def told(program: str) -> tuple[Diagnostic, ...]:
    try:
        return compile_source(Source(str(Path("program.neural")), program)).messages
    except NeuralError as error:
        return error.diagnostics


@pytest.mark.parametrize("code", RUNNABLE)
def test_the_wrong_program_gives_the_code_and_the_right_one_nothing(code: str) -> None:
    programs = dict(BLOCK.findall(page(code)))
    assert {d.code for d in told(programs["Wrong"])} == {code}
    right = told(programs["Right"])
    assert code not in {d.code for d in right}
    assert all(d.severity is not Severity.ERROR for d in right)


def test_an_unknown_code_has_no_page() -> None:
    assert page("N000") is None
    assert page("../pages/N101") is None
    assert title("N000") is None
