"""Messages to people and to tools."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from neural.diagnostics.diagnostic import Diagnostic
from neural.diagnostics.render import render


def show(diagnostics: Iterable[Diagnostic]) -> None:
    """Draw messages on standard error, in colour on a terminal."""
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    text = render(tuple(diagnostics), color=color)
    if text:
        print(text.rstrip("\n"), file=sys.stderr)


def note(text: str) -> None:
    """A line about what is being done, on standard error."""
    print(text, file=sys.stderr)
