"""`neural check`."""

from __future__ import annotations

from typing import Annotated

import typer

from neural.cli.options import File, Json, NetworkName, Set, Strict


def check(
    file: File,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    strict: Strict = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write the safe fixes into the file, then format it.")] = False,
    json: Json = False,
) -> None:
    """Prove a program sound, without loading a framework.

    Prints its size, or every mistake with its place and what to do. Exit code 2 after mistakes.

    \b
    Examples:
      neural check model.neural
      neural check model.neural --set n_layer=48 --json
      neural check tutorial.neural --fix     # write the shorthand out
    """
    from neural.cli.show import show
    from neural.compiler import load
    from neural.diagnostics.diagnostic import NeuralError

    settings = _sets(sets)
    if fix:
        _fix(file, settings, network)
    try:
        program = load(file, settings, network, strict=strict)
    except NeuralError as error:
        if not json:
            raise
        _print_json({"sound": False, "diagnostics": _described(error.diagnostics)})
        raise typer.Exit(2) from None
    if json:
        sizes = {
            "network": program.name,
            "parameters": program.parameter_count,
            "context": program.context,
            "vocab_size": program.vocab_size,
        }
        _print_json({"sound": True, **sizes, "diagnostics": _described(program.messages)})
        return
    show(program.messages)
    print(summary(program))


def summary(program) -> str:
    """One line on a sound program."""
    inputs = ", ".join(f"{v.name} {_shape(v.shape)}" for v in program.graph.block.inputs)
    out = program.graph.block.value(program.graph.block.outputs[0])
    return f"{program.name} is sound: {inputs} → {_shape(out.shape)}, {program.parameter_count:,} parameters"


def _shape(shape) -> str:
    return "(" + ", ".join(a.axis or str(a.value) for a in shape) + ")"


def _sets(pairs: list[str]) -> dict[str, object]:
    from neural.cli.options import parse_sets

    return parse_sets(pairs)


def _described(diagnostics) -> list[dict]:
    from neural.diagnostics.render import to_json

    return to_json(diagnostics)


def _print_json(value: dict) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False))


def _fix(file, sets: dict[str, object], network: str | None) -> None:
    """Apply the safe fixes of the file itself, round by round until none is left."""
    from neural.cli.fmt import write_formatted
    from neural.compiler import load
    from neural.diagnostics.diagnostic import NeuralError
    from neural.diagnostics.render import apply_fixes

    done = 0
    for _ in range(8):  # a fix can uncover another
        try:
            messages = load(file, sets, network).messages
        except NeuralError as error:
            messages = error.diagnostics
        fixes = [
            d.fix
            for d in messages
            if d.fix and d.fix.safe and all(e.span.source.name == str(file) for e in d.fix.edits)
        ]
        if not fixes:
            break
        text = fixes[0].edits[0].span.source.text
        write_formatted(file, apply_fixes(text, fixes))
        done += len(fixes)
    typer.echo(f"{done} fix{'es' * (done != 1)} written to {file}", err=True)
