"""`neural bench`: us and others on this machine, in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neural.cli.options import Json
from neural.cli.show import note

if TYPE_CHECKING:
    from neural.benchmarks.generation import Measured, Shape

app = typer.Typer(name="bench", no_args_is_help=True, rich_markup_mode=None, help="Measure us beside others.")


@app.command("generate")
def generate(
    source: Annotated[
        Path, typer.Argument(help="A run directory, or a .neural file with weights.", metavar="RUN", show_default=False)
    ],
    against: Annotated[
        str | None,
        typer.Option(help="Peers, by commas. Without it: all that are installed.", metavar="NAMES"),
    ] = None,
    widths: Annotated[str, typer.Option(help="Of the weights, separated by commas.")] = "float32,int8,int4",
    batches: Annotated[str, typer.Option(help="How many prompts together.")] = "1,16",
    prompts: Annotated[str, typer.Option(help="Tokens a prompt.")] = "128",
    new: Annotated[int, typer.Option(min=2, help="Tokens to write.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Each peer's turns; medians are told.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Without it: as many as there are cores.")] = None,
    as_json: Json = False,
) -> None:
    """Tokens a second and the time to the first token, beside other programs that have the same weights.

    Each peer runs in a process of its own, and all take turns, round after round, on prompts that none has seen. The
    first round is not counted. Peers: neural (the native engine), neural-torch and neural-compiled (by PyTorch),
    transformers, transformers-static (compiled), onnxruntime and openvino (our ONNX graph in them), ctranslate2,
    llama.cpp (xllamacpp).

    \b
    Examples:
      neural bench generate runs/first
      neural bench generate model.neural --against transformers,llama.cpp --widths int8 --batches 1
      neural bench generate model.neural --batches 1,4,16 --prompts 128,900 --rounds 5 --json
    """
    from neural.benchmarks.generation import Shape, compare
    from neural.benchmarks.peers import WIDTHS

    shapes = [Shape(b, p, new) for p in _numbers(prompts, "--prompts") for b in _numbers(batches, "--batches")]
    chosen = _known(widths, WIDTHS, "--widths")
    found = compare(source, chosen, _peers(against), shapes, rounds=rounds, threads=threads, say=note)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        for width in chosen:
            print(_table(width, shapes, found.measured[width], found.share))


def _numbers(text: str, option: str) -> list[int]:
    from neural.diagnostics.diagnostic import fail

    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts):
        fail("N972", f"{option} is {text!r}, and must be whole numbers, separated by commas", hint=f"{option} 1,16")
    return [int(part) for part in parts]


def _known(text: str, known: Any, option: str) -> list[str]:
    from neural.diagnostics.diagnostic import fail

    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        fail("N972", f"{option} does not know {unknown[0]!r}", hint=f"choose of {', '.join(known)}")
    return names


def _peers(against: str | None) -> list[str]:
    """Us first; then those that are named, or all that are installed."""
    from neural.benchmarks.peers import KINDS, installed
    from neural.diagnostics.diagnostic import fail

    if against is None:
        return [name for name in KINDS if installed(name)]
    named = [name for name in _known(against, KINDS, "--against") if name != "neural"]
    missing = [name for name in named if not installed(name)]
    if missing:
        fail("N972", f"{missing[0]} is not installed here", hint="install it, or leave it out of --against")
    return ["neural", *named]


def _table(width: str, shapes: list[Shape], measured: dict[tuple[str, Shape], Measured], share: Any) -> str:
    """tokens/s, and milliseconds to the first token, a column each a shape."""
    names = list(dict.fromkeys(name for name, _ in measured))
    lines = ["", f"{width:22}" + "".join(f"{f'{s.batch} × {s.prompt}':>22}" for s in shapes)]
    for name in names:
        cells = [measured[name, shape] for shape in shapes]
        lines.append(
            f"  {name:20}" + "".join(f"{f'{c.median_speed:.1f}/s  {c.median_first * 1000:.0f} ms':>22}" for c in cells)
        )
    one = next((shape for shape in shapes if shape.batch == 1), None)
    if one and ("neural", one) in measured:
        part = share(width, measured["neural", one].median_speed)
        lines.append(
            f"  neural reads its weights at {part:.0%} of this machine's bandwidth ({one.batch} × {one.prompt})"
        )
    return "\n".join(lines)
