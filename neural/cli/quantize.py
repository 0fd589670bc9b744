"""`neural quantize`: a run with its matrices as small integers."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import CheckpointName, Json, Trained, require_known
from neural.cli.show import note, show
from neural.diagnostics.diagnostic import Diagnostic, fail

if TYPE_CHECKING:
    from neural.generation.quantize import Quantized
    from neural.quantization.quantize import MatrixError

BUDGETS = {"int8": "1%", "int4": "5%"}
OVER_BUDGET = 3  # the exit code


def quantize(
    source: Trained,
    to: Annotated[str, typer.Option("--to", help="int8, or int4 in groups of 32.", metavar="WIDTH")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run directory to make.", metavar="DIR")],
    calibrate: Annotated[
        str | None,
        typer.Option(help="Text or token shards to calibrate on. Default: the run's.", metavar="TEXT"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Text to measure on. Default: what the run held out, or a fifth of --calibrate.", metavar="TEXT"
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--max-perplexity-increase", help="What it may cost. Default: 1% for int8, 5% for int4.", metavar="PERCENT"
        ),
    ] = None,
    checkpoint: CheckpointName = "latest",
    as_json: Json = False,
) -> None:
    """Make a run of a run, or of a model with weights, with all matrices as integers of 8 or 4 bits.

    int8 has a scale a row and takes a quarter of the size; int4 has one for 32 numbers and takes about a seventh. The
    integers are found by GPTQ, which looks at what the matrices read in the text of --calibrate; without any text to
    calibrate on, numbers are rounded to the nearest. The perplexity is measured before and after, on text that was not
    calibrated on, and nothing is written if it rises by more than allowed (exit code 3).

    \b
    Examples:
      neural quantize runs/first --to int8 --output runs/first-int8
      neural quantize runs/first --to int4 --output runs/first-int4 --max-perplexity-increase 2%
      neural quantize model.neural --to int4 --output model-int4 --calibrate text.txt
    """
    require_known(to, BUDGETS, "width", "N997")
    allowed = parse_percentage(budget or BUDGETS[to])
    from neural.generation import quantized_run
    from neural.generation.quantize import quantize as work
    from neural.training.run import require_free
    from neural.training.session import choose_device

    require_free(output, "--output")
    origin = quantized_run.open_origin(source, checkpoint)
    calibration, measured = quantized_run.choose_texts(origin, calibrate, data)
    origin.trained.model.to(choose_device("auto"))
    note(f"{origin.trained.program.name}: {origin.trained.program.parameter_count:,} parameters, to {to}")
    made = work(origin.trained, to, calibration, measured, _progress)
    kept = made.increase <= allowed
    if kept:
        quantized_run.write(output, origin, to, made, calibration, measured, allowed)
    print(_json(made, output if kept else None, allowed) if as_json else _table(made, measured.record.tokens, allowed))
    if not kept:
        show((_over_budget(made, allowed, to),))
        raise typer.Exit(OVER_BUDGET)
    note(f"wrote {output}: neural generate {output} --prompt …")


def parse_percentage(text: str) -> float:
    """ "1%" as 0.01. NeuralError N993."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", text.strip())
    if not found:
        fail("N993", f"{text!r} is not a percentage", hint="write it like `--max-perplexity-increase 1%`")
    return float(found[1]) / 100


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line with the time elsewhere."""
    start = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda n: bar.advance(task, n)
    else:
        yield lambda _: None
    note(f"{doing}: {time.perf_counter() - start:.1f} s")


def _over_budget(made: Quantized, allowed: float, to: str) -> Diagnostic:
    wider = "use --to int8, or " if to == "int4" else ""
    return Diagnostic(
        "N990",
        f"{to} raises the perplexity by {100 * made.increase:.3f} %, and {100 * allowed:.4g} % is allowed",
        notes=(f"from {made.before:.4f} to {made.after:.4f}; nothing was written",),
        hint=f"{wider}allow more: --max-perplexity-increase {int(100 * made.increase) + 1}%",
    )


def _json(made: Quantized, output: Path | None, allowed: float) -> str:
    from dataclasses import asdict
    from json import dumps

    return dumps(
        {
            "run": output and str(output),
            "perplexity_before": made.before,
            "perplexity": made.after,
            "increase": made.increase,
            "allowed": allowed,
            "size_before": made.size_before,
            "size": made.size,
            "matrices": [asdict(error) for error in made.errors],
        }
    )


def _table(made: Quantized, tokens: int, allowed: float) -> str:
    """Copies of a layer in one line, with the worst of them."""
    copies: dict[str, list[MatrixError]] = {}
    for error in made.errors:
        copies.setdefault(re.sub(r"\.\d+(?=\.)", ".*", error.name), []).append(error)
    lines = [("matrix", "shape", "bits", "by", "error of outputs", "of weights", "")]
    lines += [_row(name, errors) for name, errors in copies.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(
        [
            *drawn,
            "",
            f"perplexity  {made.before:.4f} before, {made.after:.4f} after: {100 * made.increase:+.3f} %"
            f" of {100 * allowed:.4g} % that are allowed, over {tokens:,} tokens",
            f"size        {made.size_before:,} bytes before, {made.size:,} after: "
            f"{made.size / made.size_before:.4f} of it",
        ]
    )


def _row(name: str, errors: list[MatrixError]) -> tuple[str, ...]:
    first = errors[0]
    count = f"{len(errors)} × " if len(errors) > 1 else ""
    rows, columns = first.shape
    worst = max(errors, key=lambda e: e.weight if e.output is None else e.output)
    outputs = "–" if first.output is None else _mean([e.output for e in errors])
    most = f"most in {worst.name}" if len(errors) > 1 else ""
    shape = f"{count}{rows:,} × {columns:,}"
    zeros = sum(error.zeros for error in errors)
    bits = str(first.bits) + (f", zeros in {zeros}" if 0 < zeros < len(errors) else ", zeros" if zeros else "")
    return name, shape, bits, first.method, outputs, _mean([e.weight for e in errors]), most


def _mean(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.2f} %"
