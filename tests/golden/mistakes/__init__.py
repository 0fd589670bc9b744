"""Programs with mistakes, each beside the page that `neural check` draws of it.

`NAME.neural` is a program, `NAME.txt` its golden page: the program, then the messages as a pipe gets them.
A first line `# neural check --set a=1 --network B --strict` gives options. `files/` holds what programs import.
"""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path

from neural.cli.options import parse_sets
from neural.compiler import load
from neural.diagnostics.diagnostic import Diagnostic, NeuralError
from neural.diagnostics.render import render, summary

PROGRAMS = Path(__file__).parent


def names() -> list[str]:
    """All programs, in order."""
    return sorted(path.stem for path in PROGRAMS.glob("*.neural"))


def options(text: str) -> dict[str, object]:
    """What the first line of a program says that `neural check` is given."""
    words = iter(shlex.split(found[1]) if (found := re.match(r"# neural check (.*)", text)) else ())
    sets, rest = [], {}
    for word in words:
        match word:
            case "--set":
                sets.append(next(words))
            case "--network":
                rest["network"] = next(words)
            case "--strict":
                rest["strict"] = True
            case _:
                raise ValueError(f"the tests know no option {word}")
    return {"sets": parse_sets(sets), **rest}


def messages(name: str) -> tuple[Diagnostic, ...]:
    """What the compiler says of a program."""
    path = PROGRAMS / f"{name}.neural"
    with chdir(PROGRAMS):
        try:
            return load(path.name, **options(path.read_text(encoding="utf-8", errors="replace"))).messages
        except NeuralError as error:
            return error.diagnostics


def page(name: str) -> str:
    """The golden page of a program."""
    source = (PROGRAMS / f"{name}.neural").read_text(encoding="utf-8", errors="replace")
    found = messages(name)
    return f"{source.rstrip()}\n\n{'─' * 80}\n{render(found, color=False)}{summary(found)}\n"


def golden() -> dict[Path, str]:
    """Every page under the path where it is kept."""
    return {PROGRAMS / f"{name}.txt": page(name) for name in names()}
