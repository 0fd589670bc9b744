"""What is generated in docs/ is what the code gives now."""

from __future__ import annotations

from pathlib import Path

import pytest

from neural.backends.svg import emit
from neural.compiler import load
from neural.layers.reference import reference


def golden() -> dict[Path, str]:
    return {Path("docs/layers.md"): reference(), Path("docs/gpt2.svg"): emit(load("examples/gpt2.neural").graph)}


@pytest.mark.parametrize(("path", "text"), golden().items(), ids=lambda x: x.name if isinstance(x, Path) else "")
def test_up_to_date(path: Path, text: str) -> None:
    assert path.read_text() == text, "`make golden` writes it anew"
