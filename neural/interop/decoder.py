"""What every format says of a decoder: the pivot between a graph and the files of others.

A reader of a format gives a `Checkpoint`; a writer takes one. Only this form stands between them, so that n$
formats need n readers and n writers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

BLOCK = 32  # numbers of a row under one scale, in the types of GGUF


@dataclass(frozen=True, slots=True)
class Rotary:
    """RoPE by halves (x[i] turns with x[i + head_dim / 2]), as `Rope(…)` of the language has it."""

    base: float = 10000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_max_length: int = 8192


@dataclass(frozen=True, slots=True)
class Decoder:
    """A causal transformer: embedding, blocks of pre-norm attention and MLP in a residual stream, norm, head."""

    vocab_size: int
    context: int
    d_model: int
    n_layer: int
    n_head: int
    n_kv_head: int
    head_dim: int
    d_ff: int
    norm: Literal["layer", "rms"]  # "layer" has biases
    epsilon: float
    activation: str  # the language's name: "gelu_tanh", "silu"
    gated: bool  # down(activation(gate(x)) * up(x)), else down(activation(up(x)))
    tied: bool  # the head is the embedding's table
    rope: Rotary | None = None  # None: a learned table of positions
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: bool = False  # RMS normalisation of each head's queries and keys, epsilon 1e-6, before RoPE
    scale: float | None = None  # of q·k; None: 1 / sqrt(head_dim)
    embedding_scale: float | None = None  # the embedding is multiplied by it
    window: int | None = None  # sliding attention, the token itself counted, in every layer
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as Hugging Face's `tokenizers` has it, and the ids that mean something to a generator."""

    tokenizer_json: str
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    chat_template: str | None = None  # Jinja


class Steps(NamedTuple):
    """How a quantised matrix (N, K) may be stored without a loss: its numbers are integers of so many bits, 8 or 4,
    times scales, float16 (N, K // BLOCK), one for BLOCK numbers of a row.
    """

    bits: int
    scales: Array


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A decoder with its weights.

    tensors: in PyTorch's layout (a Linear's weight is (out, in)), float32 unless the file was narrower and the reader
    kept it; norms' weights multiply as they are (a format that stores weight - 1 adds 1). Names:
    `tokens.weight` `positions.weight` `norm.weight` `norm.bias` `head.weight` (absent where tied) and for block i
    `blocks.{i}.` + `norm_1` `q` `k` `v` `q_norm` `k_norm` `out` `norm_2` `gate` `up` `down` + `.weight` or `.bias`.
    steps: of those tensors that have any.
    """

    decoder: Decoder
    tensors: Mapping[str, Array]
    vocabulary: Vocabulary | None = None
    family: str | None = None  # Hugging Face's model_type, where the file says it
    steps: Mapping[str, Steps] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recognized:
    """What a network is to other formats.

    weights: our name → the pivot's name, or the three that a fused one holds, stacked on axis 0: q, k, v."""

    decoder: Decoder
    weights: dict[str, str | tuple[str, ...]]


def tensor_shapes(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    """Every tensor of a `Checkpoint` of this decoder, in order, with its shape."""
    d = decoder
    shapes = {"tokens.weight": (d.vocab_size, d.d_model)}
    if d.rope is None:
        shapes["positions.weight"] = (d.context, d.d_model)

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = (d.d_model,)
        if d.norm == "layer":
            shapes[f"{name}.bias"] = (d.d_model,)

    wide, narrow = d.n_head * d.head_dim, d.n_kv_head * d.head_dim
    for i in range(d.n_layer):
        block = f"blocks.{i}."
        norm(f"{block}norm_1")
        for part, rows in (("q", wide), ("k", narrow), ("v", narrow)):
            linear(block + part, rows, d.d_model, d.qkv_bias)
        if d.qk_norm:
            shapes |= {f"{block}{part}_norm.weight": (d.head_dim,) for part in "qk"}
        linear(f"{block}out", d.d_model, wide, d.out_bias)
        norm(f"{block}norm_2")
        for part in ("gate", "up") if d.gated else ("up",):
            linear(block + part, d.d_ff, d.d_model, d.mlp_bias)
        linear(f"{block}down", d.d_model, d.d_ff, d.mlp_bias)
    norm("norm")
    if not d.tied:
        shapes["head.weight"] = (d.vocab_size, d.d_model)
    if d.head_bias:
        shapes["head.bias"] = (d.vocab_size,)
    return shapes
