"""`neural runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import Json
from neural.diagnostics.amounts import size

if TYPE_CHECKING:
    from neural.training.runs import Overview

COLUMNS = ("run", "network", "state", "step", "loss", "validation", "size", "resumes from")


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, at any depth.", metavar="[DIR]")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs: state, step, losses, size on disk, and what can be resumed.

    A run is `running` while a trainer holds it, and `crashed` where its trainer ended without saying so. The loss is
    the newest of training, the validation loss the lowest, in nats a token.

    \b
    Examples:
      neural runs
      neural runs experiments --json
    """
    from neural.cli.show import note
    from neural.training.runs import find_runs

    found = find_runs(folder)
    if as_json:
        from dataclasses import asdict
        from json import dumps

        print(dumps({"runs": [{**asdict(run), "path": str(run.path)} for run in found]}, ensure_ascii=False))
        return
    if not found:
        note(f"no runs in {folder}")
        return
    rows = [COLUMNS, *(_row(run) for run in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for run in found:
        if run.problem:
            note(f"{run.path}: {run.problem}")


def _row(run: Overview) -> tuple[str, ...]:
    step = "" if run.step is None else f"{run.step:,} / {run.total_steps:,}"
    losses = ["" if loss is None else f"{loss:.4f}" for loss in (run.loss, run.validation_loss)]
    return (str(run.path), run.network or "", run.state, step, *losses, size(run.size), run.resumes_from or "")
