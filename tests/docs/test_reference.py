"""docs/layers.md is what the layers declare."""

from __future__ import annotations

from pathlib import Path

from neural.layers.reference import reference


def golden() -> dict[Path, str]:
    return {Path("docs/layers.md"): reference()}


def test_layers_page_is_up_to_date() -> None:
    assert Path("docs/layers.md").read_text() == reference(), "`make golden` writes it anew"
