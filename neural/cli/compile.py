"""`neural compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neural.cli.options import File, NetworkName, Set, Strict, parse_sets


def compile_(
    file: File,
    backend: Annotated[str, typer.Option("--backend", "-b", help="What to write for: pytorch.")] = "pytorch",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; standard output by default.", metavar="FILE")
    ] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    strict: Strict = False,
) -> None:
    """Write a network as source of a framework, which needs nothing of ours.

    \b
    Examples:
      neural compile examples/gpt_decoder.neural --backend pytorch --output gpt_pt.py
      neural compile examples/gpt2.neural --set n_layer=24 --set d_model=1024 --set n_head=16
    """
    from neural.cli.show import note, show
    from neural.compiler import BACKENDS, load
    from neural.diagnostics.diagnostic import fail
    from neural.diagnostics.near import nearest
    from neural.training.durable import write_text

    if backend not in BACKENDS:
        near = nearest(backend, BACKENDS)
        fail(
            "N012",
            f"there is no back end `{backend}`",
            hint=f"did you mean `{near}`?" if near else f"known: {', '.join(BACKENDS)}",
        )
    program = load(file, parse_sets(sets), network, strict=strict)
    show(program.messages)
    source = program.source(backend)
    if output is None:
        print(source, end="")
        return
    write_text(output, source)
    note(f"wrote {output}: {program.name}, {program.parameter_count:,} parameters")
