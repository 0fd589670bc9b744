"""A model of others as a program of ours, with its weights and its tokenizer beside it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path

from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.source import Source
from neural.interop import tensor_files
from neural.interop.decoder import Checkpoint, tensor_shapes
from neural.interop.huggingface.tokenizer import CONFIG, FILE, require_fitting, write_vocabulary
from neural.interop.program import program_text
from neural.interop.recognition import recognize, to_network

NAMES = {"gpt2": "Gpt2"}  # of the network, where the family's name with a capital would not read well


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote."""

    program: Program
    files: tuple[Path, ...]


def files_of(output: Path) -> tuple[Path, ...]:
    """What an import may write: the program last, which makes the rest mean something."""
    beside = (output.with_suffix(".safetensors"), *(output.parent / n for n in (FILE, CONFIG)))
    return (*beside, output)


def require_free(output: Path) -> None:
    """NeuralError N871 if a file that the import writes is there already, or the program is no .neural file."""
    if output.suffix != ".neural":
        fail("N871", f"{output} is no .neural file", hint=f"write --output {output.with_suffix('.neural')}")
    for path in files_of(output):
        if path.exists():
            fail("N871", f"{path} is there already", hint="give another folder, or move the file away")


def write_program(checkpoint: Checkpoint, output: Path, origin: str) -> Imported:
    """model.neural, model.safetensors under our names, tokenizer.json and its configuration: all of them or none.

    origin: where the model came from, for the comment above the program. The folder of `output` must exist.
    NeuralError N866 (the tokenizer does not fit), N871 (a file is in the way). OSError as the system gives it.
    """
    require_free(output)
    decoder = checkpoint.decoder
    require_fitting(checkpoint.vocabulary, decoder.vocab_size)
    count = sum(map(prod, tensor_shapes(decoder).values()))
    name = NAMES.get(checkpoint.family, (checkpoint.family or "decoder").capitalize())
    weights = output.with_suffix(".safetensors").name
    text = program_text(
        decoder,
        name,
        weights=weights,
        tokenizer=FILE if checkpoint.vocabulary else None,
        title=f"{name} of {count:,} parameters, from {origin}",
    )
    program = compile_source(Source(str(output), text))
    recognized = recognize(program.graph)
    if recognized.decoder != decoder:
        raise RuntimeError(f"the program says {recognized.decoder}, and the model is {decoder}")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        folder = Path(beside)
        tensor_files.write_file(to_network(recognized, checkpoint.tensors), folder / weights)
        if checkpoint.vocabulary:
            write_vocabulary(checkpoint.vocabulary, folder, decoder.context)
        (folder / output.name).write_text(text, encoding="utf-8")
        return Imported(program, _settled(folder, output))


def _settled(folder: Path, output: Path) -> tuple[Path, ...]:
    """Move the files into their place, each on the disk before it has its name."""
    found = tuple(path for path in files_of(output) if (folder / path.name).exists())
    for path in found:
        with (folder / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (folder / path.name).replace(path)
    return found
