"""Programs with slips of the keyboard: characters, tokens and lines added, lost, swapped and repeated."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

TUTORIAL = Path(__file__).parents[1] / "fixtures" / "tutorial"
PROGRAMS = [path.read_text() for path in sorted(TUTORIAL.glob("*.neural"))]
STRAY = [*"{}()[]:=,*$\"'#/\\+-.;é日“”\x01\x7f\u00a0\n", "/*", "*/", "**", "layers:", "1e", "0x1", "$", "none"]

PIECES: dict[str, Callable[[str], list[str]]] = {
    "characters": list,
    "tokens": lambda text: re.findall(r"\s+|\w+|.", text),
    "lines": lambda text: text.splitlines(keepends=True),
}


def mutated(random: Random) -> str:
    """One of the tutorial's programs with one to five slips of a kind."""
    pieces = PIECES[random.choice(list(PIECES))](random.choice(PROGRAMS))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(pieces))
        match random.randrange(5):
            case 0 if len(pieces) > 1:
                del pieces[at]
            case 1:
                pieces.insert(at, random.choice(STRAY))
            case 2:
                pieces.insert(at, random.choice(pieces))
            case 3:
                other = random.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case _:
                pieces[at] = random.choice(STRAY)
    return "".join(pieces)


def noise(random: Random) -> str:
    """Random bytes, read as text in one way or another."""
    raw = random.randbytes(random.randrange(1, 400))
    return raw.decode(random.choice(("latin-1", "utf-16-le")), errors="replace")
