"""`neural verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import Json, NetworkName, Set, parse_sets, require_known

if TYPE_CHECKING:
    from neural.verification.verify import Row

COLUMNS = {
    "logits": "logits", "padded": "with padding", "cached": "by the cache", "gradients": "gradients",
    "steps": "5 steps", "tokens": "tokens",
}  # fmt: skip


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="A .neural file, or a run.", metavar="FILE", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Argument(help="Whose weights: a run, a .safetensors file, a Hugging Face folder. Default: random ones."),
    ] = None,
    backend: Annotated[
        list[str], typer.Option("--backend", "-b", help="Only this back end. May be repeated.", metavar="NAME")
    ] = [],  # noqa: B006
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the batch.")] = 0,
    export: Annotated[
        Path | None, typer.Option(help="Check a folder that `neural export` wrote instead.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that all back ends are one model: the same weights in each, and the largest differences from PyTorch.

    Compared are the logits, whole, with padding, and token by token through the cache; the gradient of the loss; the
    losses of five optimizer steps; and the tokens that greedy decoding writes. What is not installed is reported as
    not checked. Exit code 1 if anything differs by more than the tolerance: 2e-5 for logits (of the largest logit
    where that is above 1), 1e-4 for gradients and losses (relative), no token. Logits and gradients that differ by more
    are held against PyTorch in float64, and pass if they are at most twice as far from it as PyTorch in float32 is.

    \b
    Examples:
      neural verify examples/gpt_decoder.neural --set n_layer=4
      neural verify runs/first --backend jax --backend onnx
      neural verify examples/shakespeare_char.neural runs/first
      neural verify model.neural --json
      neural verify --export first-onnx
    """
    from neural.cli.show import show
    from neural.compiler import load
    from neural.diagnostics.diagnostic import fail
    from neural.interop.weights import open_weights, program_weights
    from neural.verification.peer import BACKENDS
    from neural.verification.verify import verify as run

    if (file is None) == (export is None):
        fail("N930", "neural verify takes a .neural file, or --export DIR", hint="give one of the two")
    if export is not None:
        _check_export(export, as_json)
        return
    for name in backend:
        require_known(name, BACKENDS, "back end", "N012")
    if (file / "program.neural").is_file():  # a run, with its own weights
        file, weights = file / "program.neural", weights or str(file)
    program = load(file, parse_sets(sets), network)
    show(program.messages)
    given = open_weights(weights, program) if weights else program_weights(program) if program.pretrained() else None
    rows = _watched(lambda tell: run(program, given, seed=seed, backends=backend or tuple(BACKENDS), tell=tell))
    print(_json(program.name, rows) if as_json else _table(program.name, rows))
    if any(row.state in ("differs", "failed") for row in rows):
        raise typer.Exit(1)


def _check_export(folder: Path, as_json: bool) -> None:
    from json import dumps

    from neural.verification.exports import check

    found = check(folder)
    verdict = "the same model" if found.same else "another model"
    said = f"{folder}: {found.network} as {found.form}, read by {found.reader}, is {verdict}"
    told = {"format": found.form, "network": found.network, "reader": found.reader, "difference": found.difference}
    print(dumps({**told, "same": found.same}) if as_json else f"{said}: logits within {found.difference:.1e}")
    if not found.same:
        raise typer.Exit(1)


def _watched(work):
    """Do the work with a line that says which back end is running, and which check."""
    from rich.console import Console

    from neural.verification.peer import PEERS

    console = Console(stderr=True)
    with console.status("preparing") as status:
        return work(lambda name, check: status.update(f"{PEERS[name].title}: {COLUMNS.get(check, 'loading')}"))


def _table(network: str, rows: list[Row]) -> str:
    from neural.verification.peer import BACKENDS

    checks = [c for c in COLUMNS if any(c in row.differences for row in rows)]
    lines = [("", *(COLUMNS[c] for c in checks), "")]
    for row in rows:
        cells = (_cell(row.differences.get(c), c, c in row.beyond) for c in checks)
        lines.append((BACKENDS[row.name].title, *cells, _verdict(row)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    drawn = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return f"{network}: largest differences from the reference\n\n" + "\n".join(drawn)


def _cell(difference: float | None, check: str, beyond: bool) -> str:
    if difference is None:
        return "–"
    text = f"{difference:.0f} differ" if check == "tokens" and difference else "equal" if check == "tokens" else ""
    return (text or f"{difference:.1e}") + (" !" if beyond else "")


def _verdict(row: Row) -> str:
    if row.state == "differs" and "gradients" in row.beyond:
        return f"differs, most in {row.worst}"
    if row.state == "ok" and row.rounding:
        found = (f"{COLUMNS[c]} {own:.1e}, PyTorch {pytorch:.1e}" for c, (own, pytorch) in row.rounding.items())
        return f"ok: rounding; from float64 {', '.join(found)}"
    return f"{row.state}: {row.why}" if row.why else row.state


def _json(network: str, rows: list[Row]) -> str:
    from json import dumps

    from neural.verification.verify import TOLERANCES

    made = [
        {
            "backend": r.name, "state": r.state, "differences": r.differences, "beyond": r.beyond, "why": r.why or None,
            "from_float64": {check: {"own": own, "pytorch": other} for check, (own, other) in r.rounding.items()},
        }
        for r in rows
    ]  # fmt: skip
    return dumps({"network": network, "tolerances": TOLERANCES, "backends": made})
