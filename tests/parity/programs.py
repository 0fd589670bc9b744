"""Small whole programs around the samples of layers."""

from __future__ import annotations

from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.layers.layer import Sample

HEADS = {"ids": "Embedding(input_dim=11, output_dim=8)"}


def sample_program(sample: Sample) -> Program:
    """A network that is one sample."""
    return compile_source(
        Source("sample.neural", f"network Sample {{ input: {sample.input} layers: {sample.layers} }}")
    )
