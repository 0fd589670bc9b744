"""`neural plan`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import File, Json, NetworkName, Precision, Set, parse_sets

if TYPE_CHECKING:
    from neural.planning.hardware import Hardware

MOST_TOKENS = 10**18  # what is more is a slip of the pen


class Strategy(StrEnum):
    """Those of `neural train --parallel`."""

    DDP = "ddp"
    FSDP = "fsdp"
    TP = "tp"


def plan(
    file: File,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences in a forward pass; by default the file's.", show_default=False)
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens in a sequence; by default the most it reads.", show_default=False)
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="On what: 8xh100, a100, rtx4090, l4, mi300x, cpu, this, …", metavar="NxNAME"),
    ] = None,
    parallel: Annotated[
        Strategy, typer.Option(help="How several devices share the work, as for `neural train`.")
    ] = Strategy.DDP,
    tensor_parallel: Annotated[
        int | None, typer.Option(help="So many of them split each product.", metavar="N", show_default=False)
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="In which products are computed. Default: the file's, or as the device does best."),
    ] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option("--checkpointing/--no-checkpointing", help="Compute blocks again; by default as the file says."),
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(help="How many to train on, such as 10e9; by default the file's steps.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Of the peak operations a second that are useful; 0.4 unless given.")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="Operations a second of a device, where its name does not say them.")
    ] = None,
    watts: Annotated[float | None, typer.Option(help="Of one device under load.")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars for an hour of one device.")] = None,
    json: Json = False,
) -> None:
    """Say what a network costs: parameters, FLOPs a token, memory for training and for generating; on devices: whether
    it fits, what to change if not, and time, energy and money.

    Arithmetic alone: no weight is allocated. FLOPs are those of matrix products, attention over the whole context among
    them; training is three times the forward pass (Chowdhery et al. 2022, appendix B). What is assumed is printed.

    \b
    Examples:
      neural plan examples/gpt2.neural
      neural plan examples/gpt2.neural --devices 8xh100 --precision bfloat16 --tokens 10e9
      neural plan examples/gpt2.neural --set n_layer=48 --set d_model=1600 --set n_head=25 --devices rtx4090
      neural plan examples/llama.neural --context 512 --devices this --json
    """
    from neural.cli.planned import as_json, described
    from neural.cli.show import note, show
    from neural.compiler import load
    from neural.planning.cost import SHARE, cost
    from neural.planning.fit import ways_to_fit
    from neural.planning.hardware import named
    from neural.planning.layout import Layout
    from neural.planning.plan import plan as make_plan
    from neural.planning.precision import AUTO, FULL

    _check(tokens, share, peak, watts, price)
    program = load(file, parse_sets(sets), network)
    count, hardware = named(devices) if devices is not None else (1, None)
    layout = Layout.of(count, parallel.value, tensor_parallel)
    asked = precision.value if precision else program.settings.execution.get("precision", AUTO)
    chosen = asked if asked != AUTO else hardware.precision if hardware else FULL
    wanted = {"precision": chosen, "checkpointing": checkpointing, "layout": layout}
    wanted |= {"device": hardware.kind} if hardware else {}
    make = partial(make_plan, program, context=context)
    made = make(batch_size=batch_size, **wanted)
    assumed = _assumed(hardware, count, chosen, share or SHARE, peak, watts, price)
    total = made.training_tokens if tokens is None else int(tokens)
    costs = cost(made, total, assumed) if assumed and total else None
    unused = {"tokens": tokens, "share": share, "watts": watts, "price": price}
    if costs is None and (given := [f"--{name}" for name, value in unused.items() if value is not None]):
        missing = "--tokens" if assumed else "--peak" if hardware else "--devices or --peak"
        note(f"note: {', '.join(given)}: time, energy and money are not reckoned without {missing}")
    ways = None
    if hardware and hardware.usable is not None and made.training.total > hardware.usable:
        given = {"batch_size": batch_size, **wanted}
        ways = ways_to_fit(made, hardware.usable, lambda **changes: make(**(given | changes)))
    if json:
        print(as_json(made, hardware, ways, costs))
        return
    show(program.messages)
    print(described(made, hardware, ways, costs))


def _assumed(
    hardware: Hardware | None,
    count: int,
    precision: str,
    share: float,
    peak: float | None,
    watts: float | None,
    price: float | None,
):
    from dataclasses import replace

    from neural.planning.cost import assumptions
    from neural.planning.hardware import GPU

    if peak is not None:
        hardware = replace(hardware or GPU, peak={precision: peak})
    return assumptions(hardware, count, precision, share, watts, price) if hardware else None


def _check(
    tokens: float | None, share: float | None, peak: float | None, watts: float | None, price: float | None
) -> None:
    """NeuralError N734 for a number that is none of its kind."""
    from neural.diagnostics.diagnostic import fail

    for name, value in {"tokens": tokens, "share": share, "peak": peak, "watts": watts, "price": price}.items():
        if value is not None and not 0 < value < float("inf"):
            fail("N734", f"--{name} {value:g} is not above 0", hint=f"give a number above 0, or leave --{name} out")
    if tokens is not None and not 1 <= tokens <= MOST_TOKENS:
        fail("N734", f"--tokens {tokens:g} is not from 1 to {MOST_TOKENS:g}", hint="give how many are trained on: 10e9")
    if share is not None and share > 1:
        fail("N734", f"--share {share:g} is more than the whole", hint="give the share of the peak, such as 0.4")
