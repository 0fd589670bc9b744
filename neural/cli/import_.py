"""`neural import`: a model of others as a program of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from neural.cli.options import Json
from neural.cli.show import note


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder, hf:owner/name, or a .gguf file.", metavar="SRC", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The program to write; weights go beside it.", metavar="FILE")
    ],
    as_json: Json = False,
) -> None:
    """Write a program from a model of others, with its weights (safetensors) and its tokenizer beside it.

    Families: GPT-2, Llama, Mistral, Qwen2, Qwen3, Gemma. A model with parts that have no equal here is refused with the
    reason. Quantised weights of a .gguf file are written out as float32.

    \b
    Examples:
      neural import ./SmolLM2-135M --output smol/model.neural
      neural import hf:Qwen/Qwen3-0.6B --output qwen/model.neural
      neural import model.Q4_1.gguf --output model.neural
    """
    from neural.data.durable import check_place
    from neural.interop import imports, sources

    check_place(output)
    imports.require_free(output)
    note(f"reading {source}")
    checkpoint = sources.read(source)
    if checkpoint.vocabulary is None:
        note(f"{source} has no tokenizer.json: the program names no tokenizer")
    note(f"writing {output} and its weights")
    imported = imports.write_program(checkpoint, output, _origin(source))
    program = imported.program
    files = [str(path) for path in imported.files]
    note(f"wrote {program.name}, {program.parameter_count:,} parameters: {', '.join(files)}")
    if as_json:
        found = {"network": program.name, "parameters": program.parameter_count, "family": checkpoint.family}
        print(json.dumps({"output": str(output), **found, "files": files}))


def _origin(source: str) -> str:
    """Its own name, without the folders of this machine."""
    return source if source.startswith("hf:") else Path(source).resolve().name
