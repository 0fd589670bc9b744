"""`neural visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import File, NetworkName, Set, parse_sets

if TYPE_CHECKING:
    from neural.compiler import Program

POINTS = 1000


def visualize(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to; NETWORK.svg by default, NETWORK-schedule.svg for --schedule.",
            metavar="FILE.svg",
        ),
    ] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    schedule: Annotated[bool, typer.Option("--schedule", help="Draw the learning rate by step instead.")] = False,
) -> None:
    """Draw a network's architecture, or its learning-rate schedule, as an SVG picture.

    Blocks are frames around what they hold, with how often they stand there; residual connections run at their side.
    A browser shows arguments, shapes and parameters of what the mouse is on.

    \b
    Examples:
      neural visualize examples/gpt2.neural --output gpt2.svg
      neural visualize examples/llama.neural --set n_layer=4
      neural visualize examples/gpt2.neural --schedule --output rates.svg
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
    if schedule:
        path = output or Path(f"{program.name}-schedule.svg")
        write_text(path, _drawn_schedule(program))
        note(f"wrote {path}: the learning rate over {program.settings.train.steps:,} steps")
        return
    path = output or Path(f"{program.name}.svg")
    write_text(path, emit(program.graph))
    note(f"wrote {path}: {program.name}, {program.parameter_count:,} parameters")


def _drawn_schedule(program: Program) -> str:
    """The rate of each step, or of a thousand of them where there are more, as SVG. NeuralError N842."""
    from neural.backends.svg.curve import curve
    from neural.diagnostics.diagnostic import fail
    from neural.training.schedules import make_schedule

    settings = program.settings
    total = settings.train.steps
    if total is None:
        fail(
            "N842",
            f"{program.path} does not say how many steps {program.name} trains",
            hint="write `train { steps: 2000 }`: without the data an epoch has no length",
        )
    rate = make_schedule(settings.lr_schedule, settings.optimizer.arguments["learning_rate"], total)
    steps = sorted({*range(0, total, max(1, total // POINTS)), total - 1})
    name = settings.lr_schedule.name if settings.lr_schedule else "Constant"
    return curve(f"{program.name}: {name}", [(step, rate(step)) for step in steps], x="step", y="learning rate")
