"""docs/parity.md has every sample of every layer, and says of each that it holds on every back end."""

from __future__ import annotations

from pathlib import Path

from neural.layers import REGISTRY
from tests.parity.conftest import BACKENDS, SHOWN, TITLE, rows


def test_every_row_is_there_and_passes() -> None:

    page = Path("docs/parity.md").read_text(encoding="utf-8")
    assert page.startswith(TITLE), "`make parity` writes it anew"
    cells = " | ".join(" ".join("✓" for _ in SHOWN[backend]) for backend in BACKENDS)
    samples = ((name, REGISTRY[name].samples[i]) for name, i in rows())
    expected = [f"| {name} | `{sample.input}` `{sample.layers}` | {cells} |" for name, sample in samples]
    assert page.removeprefix(TITLE).splitlines()[2:] == expected, "`make parity` writes it anew"
