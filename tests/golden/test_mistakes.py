"""Mistakes in programs: their messages as a reader sees them. `make golden` rewrites the pages."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pytest

from neural.compiler import compile_source
from neural.diagnostics.diagnostic import NeuralError, Severity
from neural.diagnostics.render import apply_fixes
from neural.diagnostics.source import Source
from tests.golden.mistakes import PROGRAMS, messages, names, options, page

PACKAGE = Path(__file__).parents[2] / "neural"
ELSEWHERE = {
    "N004",
    "N005",
    "N100",
}  # unreadable and huge files, hundreds of mistakes: tests of the command line have them


@pytest.mark.parametrize("name", names())
def test_the_page_is_as_it_was(name: str) -> None:
    assert page(name) == (PROGRAMS / f"{name}.txt").read_text(encoding="utf-8")


def test_no_page_is_left_over() -> None:
    assert {p.stem for p in PROGRAMS.glob("*.txt")} == set(names())
    assert len(names()) >= 60


@pytest.mark.parametrize("name", names())
def test_no_place_has_two_messages(name: str) -> None:
    places = Counter((d.primary.span.source.name, d.primary.span.start) for d in messages(name) if d.primary)
    shorthand = {d.code for d in messages(name)} & {
        "N601",
        "N602",
    }  # a note on how it is read, and what is wrong with it
    assert shorthand or not places or max(places.values()) == 1


@pytest.mark.parametrize("name", names())
def test_a_fix_mends_what_it_is_given_for(name: str) -> None:
    with chdir(PROGRAMS):
        before = messages(name)
        for found in before:
            if found.fix is None:
                continue
            source = found.fix.edits[0].span.source
            mended = apply_fixes(source.text, [found.fix])
            assert mended != source.text
            if source.name == f"{name}.neural":
                told = [d.title for d in before if d.code == found.code].count(found.title)
                assert _told(mended, name)[found.code, found.title] < told


def _told(text: str, name: str) -> Counter[tuple[str, str]]:
    given = options((PROGRAMS / f"{name}.neural").read_text(encoding="utf-8", errors="replace"))
    try:
        found = compile_source(Source(f"{name}.neural", text), **given).messages
    except NeuralError as error:
        found = error.diagnostics
    return Counter((d.code, d.title) for d in found)


def test_every_code_of_the_compiler_has_a_program() -> None:
    used = set()
    for part in ("syntax", "graph", "layers", "compiler.py"):
        for path in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"):
            used |= set(re.findall(r'"(N\d{3})"', path.read_text(encoding="utf-8")))
    used = {code for code in used if code < "N700"} - ELSEWHERE
    assert used == {d.code for name in names() for d in messages(name)}


def test_mistakes_that_have_nothing_to_do_with_each_other_are_all_told() -> None:
    errors = [d for d in messages("all_at_once") if d.severity is Severity.ERROR]
    assert [d.code for d in errors] == ["N201", "N311", "N311", "N207", "N301", "N302", "N311", "N503", "N301", "N511"]
