"""`neural export`: a trained model for the programs of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import Json, NetworkName, Set, parse_sets, require_known
from neural.cli.show import note

if TYPE_CHECKING:
    import numpy

    from neural.compiler import Program
    from neural.interop.decoder import Vocabulary


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run directory, or a .neural file that names its weights.", metavar="SRC", show_default=False
        ),
    ],
    form: Annotated[str, typer.Option("--format", "-f", help="hf, gguf, onnx or keras.", metavar="FORMAT")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.", metavar="DIR")],
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    as_json: Json = False,
) -> None:
    """Write a model as other programs read it: a Hugging Face folder, a GGUF file for llama.cpp, ONNX, or Keras' own.

    What is written is read again, by the program that it is for where that is installed, and compared; if it differs,
    or the model has parts that the format cannot say, nothing is left and the reason is told. `neural verify --export`
    checks the folder again at any time.

    \b
    Examples:
      neural export runs/first --format hf --output first-hf
      neural export model.neural --format gguf --output first-gguf
      neural export runs/first --format onnx --output first-onnx
    """
    from neural.data.durable import fresh_folder
    from neural.diagnostics.diagnostic import fail
    from neural.interop.weights import quantized_matrices
    from neural.verification.exports import FORMATS
    from neural.verification.exports import export as write

    require_known(form, FORMATS, "format", "N873")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        fail("N871", f"{output} is there already", hint="give a folder that is new or empty")
    program, weights, vocabulary = _model(source, parse_sets(sets), network, form)
    matrices = quantized_matrices(source)
    if matrices and form in ("hf", "keras"):
        note(f"{form} has no place for integers: it gets the float32 numbers that they stand for")
    note(f"writing {output}, and reading it again")
    with fresh_folder(output) as folder:
        checked = write(program, weights, vocabulary, form, folder, matrices)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    note(f"wrote {output}: read again by {checked.reader}, it is the same model")
    if as_json:
        found = {"reader": checked.reader, "difference": checked.difference}
        print(json.dumps({"format": form, "output": str(output), "files": files, **found}))


def _model(
    source: Path, sets: dict[str, object], network: str | None, form: str
) -> tuple[Program, dict[str, numpy.ndarray], Vocabulary | None]:
    """What a run or a program holds."""
    from neural.cli.show import show
    from neural.compiler import load
    from neural.interop.weights import open_weights, program_weights
    from neural.verification.exports import require_sayable

    is_run = source.is_dir()
    if is_run:
        program = load(source / "program.neural", network=_network_of(source))
    else:
        program = load(source, sets, network)
        show(program.messages)
    require_sayable(program, form)
    note(f"reading the weights of {program.name}, {program.parameter_count:,} parameters")
    weights = open_weights(str(source), program) if is_run else program_weights(program)
    return program, weights, _vocabulary(program, source / "tokenizer.json" if is_run else None)


def _network_of(run: Path) -> str:
    """The network that a run trained."""
    from neural.diagnostics.diagnostic import fail
    from neural.interop.fields import Fields, read_object

    file = run / "run.json"
    if not file.is_file():
        fail("N850", f"{run} is not a run directory: it has no run.json", hint="give a run, or a .neural file")
    return Fields(read_object(file), file).text("network")


def _vocabulary(program: Program, file: Path | None) -> Vocabulary | None:
    """The run's tokenizer.json, or the one that the program names, with what its configuration says beside it."""
    from neural.data.tokenizers import load_tokenizer
    from neural.data.tokenizers.layout import to_json
    from neural.interop.decoder import Vocabulary
    from neural.interop.fields import Fields
    from neural.interop.huggingface.tokenizer import read_vocabulary

    spec = str(file.absolute()) if file else program.settings.tokenizer
    if spec is None:
        note(f"{program.name} names no tokenizer: the export has none")
        return None
    beside = program.base / Path(spec).expanduser()
    if beside.name == "tokenizer.json" and beside.with_name("tokenizer_config.json").is_file():
        return read_vocabulary(beside.parent, Fields({}, beside.parent / "config.json"))
    tokenizer = load_tokenizer(spec, base=program.base)
    return Vocabulary(to_json(tokenizer.layout), eos_id=tokenizer.eot_id)
