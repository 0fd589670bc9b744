"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neural.diagnostics.diagnostic import fail

File = Annotated[Path, typer.Argument(help="A .neural file.", metavar="FILE", show_default=False)]
Set = Annotated[
    list[str],
    typer.Option("--set", help="Give a `param` of the file another value. May be repeated.", metavar="NAME=VALUE"),
]
NetworkName = Annotated[
    str | None, typer.Option("--network", help="Which network, where the file has several.", metavar="NAME")
]
Strict = Annotated[bool, typer.Option("--strict", help="Take no shorthand: its notes become errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def parse_sets(pairs: list[str]) -> dict[str, object]:
    """`name=value` with a value of the language: a number, a string (quotes may be left out), true, false, none."""
    from neural.diagnostics.source import Source
    from neural.syntax.parser import parse
    from neural.syntax.tree import Literal, Param, Unary

    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier() or not text.strip():
            fail("N011", f"`--set {pair}` is not NAME=VALUE", hint="write it like `--set n_layer=4`")
        file, errors = parse(Source("--set", f"param x = {text}"))
        value = (
            file.items[0].value if len(file.items) == 1 and isinstance(file.items[0], Param) and not errors else None
        )
        if isinstance(value, Literal):
            found[name.strip()] = value.value
        elif (
            isinstance(value, Unary)
            and isinstance(value.operand, Literal)
            and isinstance(value.operand.value, int | float)
        ):
            found[name.strip()] = -value.operand.value
        else:
            found[name.strip()] = text
    return found
