"""`neural visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neural.cli.options import File, NetworkName, Set, parse_sets


def visualize(
    file: File,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; NETWORK.svg by default.", metavar="FILE.svg")
    ] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
) -> None:
    """Draw a network's architecture as an SVG picture.

    Blocks are frames around what they hold, with how often they stand there; residual connections run at their side.
    A browser shows arguments, shapes and parameters of what the mouse is on.

    \b
    Examples:
      neural visualize examples/gpt2.neural --output gpt2.svg
      neural visualize examples/llama.neural --set n_layer=4
    """
    from neural.backends.svg import emit
    from neural.cli.show import note, show
    from neural.compiler import load
    from neural.diagnostics.diagnostic import fail
    from neural.training.durable import write_text

    if output is not None and output.suffix.lower() != ".svg":
        kind = f"a {output.suffix} file" if output.suffix else f"`{output}`, which has no extension"
        better = output.with_suffix(".svg") if output.name else "model.svg"
        fail("N022", f"a drawing is an SVG file, and --output asks for {kind}", hint=f"write `--output {better}`")
    program = load(file, parse_sets(sets), network)
    show(program.messages)
    path = output or Path(f"{program.name}.svg")
    write_text(path, emit(program.graph))
    note(f"wrote {path}: {program.name}, {program.parameter_count:,} parameters")
