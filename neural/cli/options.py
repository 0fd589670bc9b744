"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from neural.diagnostics.diagnostic import fail


class Precision(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


File = Annotated[Path, typer.Argument(help="A .neural file.", metavar="FILE", show_default=False)]
Trained = Annotated[
    Path,
    typer.Argument(
        help="Directory that `neural train` wrote, or a .neural file with weights.", metavar="RUN", show_default=False
    ),
]
CheckpointName = Annotated[str, typer.Option("--checkpoint", help="latest, best, or one such as step-000100.")]
Set = Annotated[
    list[str],
    typer.Option("--set", help="Give a `param` of the file another value. May be repeated.", metavar="NAME=VALUE"),
]
NetworkName = Annotated[
    str | None, typer.Option("--network", help="Which network, where the file has several.", metavar="NAME")
]
Strict = Annotated[bool, typer.Option("--strict", help="Take no shorthand: its notes become errors.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What runs the model: native, torch, openvino, onnxruntime, compiled, or auto, the fastest here.",
        metavar="NAME",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option("--quantize", help="Weights as int8, int4, or on a GPU bfloat16: sooner, less exact.", metavar="TYPE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def require_known(name: str, known: Iterable[str], what: str, code: str) -> None:
    """A NeuralError of that code for a name that is not among those known."""
    from neural.diagnostics.near import nearest

    known = tuple(known)
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
        fail(code, f"there is no {what} `{name}`", hint=hint)


def parse_sets(pairs: list[str]) -> dict[str, object]:
    """`name=value` with a value of the language, `4`, `1e-3`, `(1, 2)`, `2 ** 8`, or a string without its quotes."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier() or not text.strip():
            fail("N011", f"`--set {pair}` is not NAME=VALUE", hint="write it like `--set n_layer=4`")
        found[name.strip()] = _value(text)
    return found


def _value(text: str) -> object:
    from neural.diagnostics.diagnostic import NeuralError
    from neural.diagnostics.source import Source
    from neural.graph.evaluate import Scope, evaluate
    from neural.graph.messages import Messages, Poisoned
    from neural.syntax.parser import parse
    from neural.syntax.tree import Param, Ref

    file, errors = parse(Source("--set", f"param value = {text}"))
    items = file.items
    if errors or len(items) != 1 or not isinstance(items[0], Param) or isinstance(items[0].value, Ref):
        return text  # a word, a path
    messages = Messages()
    try:
        return evaluate(items[0].value, Scope({}), messages).value
    except Poisoned:
        raise NeuralError(*messages.all) from None
