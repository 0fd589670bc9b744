"""`neural compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import File, NetworkName, Set, Strict, parse_sets, require_known

if TYPE_CHECKING:
    import numpy

    from neural.compiler import Program


def compile_(
    file: File,
    backend: Annotated[str, typer.Option("--backend", "-b", help="pytorch, tensorflow, jax or onnx.")] = "pytorch",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; source: standard output by default.", metavar="FILE"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="onnx: a run, or a file of weights; by default fresh ones.", metavar="RUN"),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", help="onnx: int8 or int4, for onnxruntime.", metavar="TYPE")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="onnx: of fresh weights; by default 0.")] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    strict: Strict = False,
) -> None:
    """Write a network as source of a framework, which needs nothing of ours, or as an ONNX model with weights.

    \b
    Examples:
      neural compile examples/gpt_decoder.neural --backend pytorch --output gpt_pt.py
      neural compile examples/gpt2.neural --set n_layer=24 --set d_model=1024 --set n_head=16
      neural compile examples/gpt2.neural --backend onnx --weights runs/first --quantize int8 --output gpt2.onnx
    """
    from neural.cli.show import note, show
    from neural.compiler import BACKENDS, load
    from neural.training.durable import write_text

    require_known(backend, (*BACKENDS, "onnx"), "back end", "N012")
    _check_options(backend, output, weights, quantize, seed)
    program = load(file, parse_sets(sets), network, strict=strict)
    show(program.messages)
    if backend == "onnx":
        _write_onnx(program, output, weights, quantize, seed or 0)
        return
    source = program.source(backend)
    if output is None:
        print(source, end="")
        return
    write_text(output, source)
    note(f"wrote {output}: {program.name}, {program.parameter_count:,} parameters")


def _check_options(
    backend: str, output: Path | None, weights: str | None, quantize: str | None, seed: int | None
) -> None:
    """What belongs together."""
    from neural.data.durable import check_place
    from neural.diagnostics.diagnostic import fail

    given = {"--weights": weights, "--quantize": quantize, "--seed": seed}
    extra = [option for option, value in given.items() if value is not None]
    if backend != "onnx" and extra:
        title = f"`{extra[0]}` goes with `--backend onnx`: source of {backend} holds no weights"
        fail("N920", title, hint=f"add `--backend onnx`, or leave out {' and '.join(extra)}")
    if backend == "onnx" and output is None:
        fail("N921", "an ONNX model is not text to print", hint="say where to: `--output model.onnx`")
    if quantize not in (None, "int8", "int4"):
        fail("N922", f"weights are not quantised to `{quantize}`", hint="known: int8, int4")
    if backend == "onnx":
        check_place(output)


def _write_onnx(program: Program, output: Path, weights: str | None, quantize: str | None, seed: int) -> None:
    from neural.backends.onnx import emit, write
    from neural.cli.show import note
    from neural.graph.passes import optimize
    from neural.quantization.quantize import round_all

    network, found = optimize(program.graph), _weights(program, weights, seed)
    write(emit(network, found, round_all(network.block, found, quantize) if quantize else {}), output)
    stored = f", matrices as {quantize}" if quantize else ""
    note(f"wrote {output}: {program.name}, {program.parameter_count:,} parameters{stored}")


def _weights(program: Program, given: str | None, seed: int) -> dict[str, numpy.ndarray]:
    """Those that are given, or fresh ones with what the program itself names."""
    from neural.backends.onnx import fresh_weights
    from neural.graph.passes import optimize
    from neural.interop.weights import open_weights

    if given is not None:
        return open_weights(given, program)
    found = fresh_weights(optimize(program.graph), seed)
    for prefix, source in program.pretrained():
        found |= open_weights(source, program, prefix)
    return found
