"""`neural bench train`: a program trained by us and by others, in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from neural.cli.options import Json, NetworkName, Precision, Set, parse_sets
from neural.cli.show import note
from neural.diagnostics.diagnostic import fail


def train(
    file: Annotated[Path, typer.Argument(help="A .neural file.", metavar="FILE")],
    against: Annotated[str, typer.Option(help="Whom else: nanogpt, transformers, or both with a comma.")] = "",
    nanogpt: Annotated[
        Path | None, typer.Option(help="A checkout of nanoGPT, for --against nanogpt.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each has its turn.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps in a turn, after two to warm up.")] = 5,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of everybody's products. Default: as `neural train` chooses.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    as_json: Json = False,
) -> None:
    """Train some steps, by our trainer and by others in turn, and compare tokens a second, memory and losses.

    All start from the same weights and see the same random tokens, under torch.autocast in half precision; each is a
    process of its own. The peak is that of a large product of matrices, measured in the same process. A GPU is not
    waited for between the steps.

    \b
    Examples:
      neural bench train examples/shakespeare_char.neural
      neural bench train examples/gpt2.neural --set dropout=0.0 --against transformers
      neural bench train examples/gpt2.neural --against nanogpt,transformers --nanogpt ../nanoGPT
    """
    chosen = [name.strip() for name in against.split(",") if name.strip()]
    if against and not chosen:
        fail("N877", f"--against {against!r} names nobody", hint="nanogpt, transformers, or leave it out")
    for name in chosen:
        if name not in ("nanogpt", "transformers"):
            fail("N877", f"there is nobody called {name!r} to compare with", hint="nanogpt, transformers")
    if "nanogpt" in chosen and nanogpt is None:
        fail("N874", "where nanoGPT is was not said", hint="give a checkout with --nanogpt PATH")
    from neural.benchmarks.training.comparison import compare, line
    from neural.compiler import load
    from neural.training.data import require_trainable
    from neural.training.precision import chosen_precision
    from neural.training.session import choose_device

    program = load(file, parse_sets(sets), network)
    require_trainable(program)
    both = [n for name in chosen for n in ([name, "nanogpt-compiled"] if name == "nanogpt" else [name])]
    where = choose_device(device)
    kind = precision.value if precision else chosen_precision(program, where)[0]
    note(f"on {where.type}, in {kind}")
    how = {"rounds": rounds, "steps": steps, "precision": kind, "device": where.type}
    found = compare(program, parse_sets(sets), ("neural", *both), nanogpt, **how, tell=note)
    if as_json:
        print(json.dumps(found))
        return
    ours = found["medians"]["neural"]
    for who, median in found["medians"].items():
        ratio = ours["tokens_per_second"] / median["tokens_per_second"]
        print(line(who, median) + ("" if who == "neural" else f"  neural is {ratio:.2f} times as fast"))
