"""The architectures of llama.cpp that a `Decoder` can be: a table of differences, and the names of their tensors.

What each computes is llama.cpp's `src/models/*.cpp`; Mistral is a `llama` there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neural.interop.decoder import Decoder, tensor_shapes

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

QK_EPSILON = 1e-6  # of `qk_norm`; llama.cpp has the model's own there

_ALWAYS = {"head_bias": False, "scale": None, "window": None}
BIASES = ("qkv_bias", "out_bias", "mlp_bias")
_PLAIN = dict.fromkeys(BIASES, False) | {"qk_norm": False}
_GATED = {"norm": "rms", "gated": True, "activation": "silu"}


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """fixed: the fields of a decoder that it has no choice in. fused: queries, keys and values are one tensor.
    interleaved: RoPE turns neighbours, x[2i] with x[2i + 1], and the rows of queries and keys are in that order.
    factors: the frequencies may be divided by a tensor of factors, as Llama 3's are. biased: every linear layer but the
    head has a bias."""

    name: str  # general.architecture, and Hugging Face's model_type
    fixed: dict[str, object]
    learned_positions: bool = False
    fused: bool = False
    interleaved: bool = False
    factors: bool = False
    biased: bool = False
    scaled_embedding: bool = False

    @property
    def epsilon_key(self) -> str:
        kind = "layer_norm_epsilon" if self.fixed["norm"] == "layer" else "layer_norm_rms_epsilon"
        return f"attention.{kind}"

    def embedding_scale(self, d_model: int) -> float | None:
        return math.sqrt(d_model) if self.scaled_embedding else None

    def filled(self, decoder: Decoder) -> Decoder:
        """The decoder with the biases that it always has, which are zeros where there were none."""
        return replace(decoder, **dict.fromkeys(BIASES, True)) if self.biased else decoder

    def differences(self, decoder: Decoder) -> Iterator[str]:
        """Why it cannot hold a decoder."""
        for name, value in (_ALWAYS | self.fixed).items():
            if (found := getattr(decoder, name)) != value:
                yield f"{name} is {found!r} here and {value!r} there"
        if self.learned_positions is not (decoder.rope is None):
            yield f"positions are {'learned' if self.learned_positions else 'rotary'} there"
        if decoder.rope and decoder.rope.scaling == "llama3" and not self.factors:
            yield "Llama 3's scaling of RoPE is not known there"
        if (
            self.fused
            and not decoder.n_head * decoder.head_dim == decoder.n_kv_head * decoder.head_dim == decoder.d_model
        ):
            yield "queries, keys and values are as wide as the model there"
        scale = self.embedding_scale(decoder.d_model)
        if (scale is None) is not (decoder.embedding_scale is None) or (
            scale is not None and not math.isclose(scale, decoder.embedding_scale, rel_tol=1e-6)
        ):
            yield f"the embedding is multiplied by {decoder.embedding_scale or 1} here and by {scale or 1} there"
        if decoder.qk_norm and not math.isclose(decoder.epsilon, QK_EPSILON, rel_tol=1e-6):
            yield f"epsilon is {decoder.epsilon}; there the norms of queries and keys, of {QK_EPSILON}, share it"


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "gpt2",
            {"norm": "layer", "gated": False, "activation": "gelu_tanh", "qk_norm": False},
            biased=True,
            learned_positions=True,
            fused=True,
        ),
        Architecture("qwen3", _GATED | _PLAIN | {"qk_norm": True}),
        Architecture("gemma", _GATED | _PLAIN | {"activation": "gelu_tanh", "tied": True}, scaled_embedding=True),
        Architecture("qwen2", _GATED | _PLAIN | {"qkv_bias": True}),
        Architecture("llama", _GATED | {"qk_norm": False}, interleaved=True, factors=True),
    )
}

_BLOCK = {
    "norm_1": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "out": "attn_output",
    "norm_2": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_WHOLE = {"tokens": "token_embd", "positions": "position_embd", "norm": "output_norm", "head": "output"}


def file_names(architecture: Architecture, decoder: Decoder) -> dict[str, tuple[str, ...]]:
    """Every tensor of the file, and the one or the three (stacked on axis 0) of a `Checkpoint` that it holds."""
    found: dict[str, tuple[str, ...]] = {}
    for name in tensor_shapes(decoder):
        *block, part, kind = name.split(".")
        if not block:
            theirs = f"{_WHOLE[part]}.{kind}"
        elif architecture.fused and part in ("q", "k", "v"):
            theirs = f"blk.{block[1]}.attn_qkv.{kind}"
        else:
            theirs = f"blk.{block[1]}.{_BLOCK[part]}.{kind}"
        found[theirs] = (*found.get(theirs, ()), name)
    return found


def heads_to_turn(architecture: Architecture, decoder: Decoder, name: str) -> int | None:
    """How many heads' rows of a pivot tensor stand in another order in the file; None if they do not."""
    part = name.split(".")[-2]
    return {"q": decoder.n_head, "k": decoder.n_kv_head}.get(part) if architecture.interleaved else None


def by_neighbours(rows: Array, heads: int) -> Array:
    """Rows of heads whose first half turns with the second, in the order where neighbours turn with each other."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def by_halves(rows: Array, heads: int) -> Array:
    """The inverse of `by_neighbours`."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
