"""From a GGUF file to a `Checkpoint`. Whatever it says that is not understood is refused, and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Checkpoint, Decoder, Rotary, tensor_shapes
from neural.interop.gguf import frequencies
from neural.interop.gguf.architectures import (
    ARCHITECTURES,
    Architecture,
    by_halves,
    file_names,
    heads_to_turn,
)
from neural.interop.gguf.container import Container, check_types, open_container
from neural.interop.gguf.vocabulary import read_vocabulary

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

LARGEST_NUMBER = (1 << 31) - 1

# Keys that say nothing that the others do not.
SILENT = ("rope.scaling.finetuned", "rope.scaling.original_context_length")
# Keys of what a decoder does not do, with the value that means "not done".
NEUTRAL = {
    "attention.causal": True,
    "attention.scale": 0.0,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attn_logit_softcapping": 0.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "final_logit_softcapping": 0.0,
    "logit_scale": 0.0,
    "rope.scaling.attn_factor": 1.0,
    "use_parallel_residual": False,
}


def read(path: str | Path) -> Checkpoint:
    """The model in a file of llama.cpp. Its tensors are float32, and are unpacked one by one as they are asked for.

    NeuralError: N880 to N882 (the file), N883 (an architecture that is not known), N884 (a configuration without
    equal), N885 (a tensor too many, too few or of another shape), N886 (a type of numbers), N887 (its tokenizer).
    """
    container = open_container(Path(path))
    architecture = _architecture(container)
    decoder = _decoder(_Settings(container, architecture), architecture)
    _check_tensors(container, architecture, decoder)
    decoder = _with_factors(container, architecture, decoder)
    check_types(container)
    vocabulary = read_vocabulary(container, decoder.vocab_size)
    return Checkpoint(decoder, Tensors(container, architecture, decoder), vocabulary, architecture.name)


class Tensors(Mapping[str, "Array"]):
    """The tensors of a `Checkpoint`, each read when it is asked for."""

    def __init__(self, container: Container, architecture: Architecture, decoder: Decoder) -> None:
        self._container, self._architecture, self._decoder = container, architecture, decoder
        self._shapes = tensor_shapes(decoder)
        self._place = {
            name: (theirs, sum(self._shapes[before][0] for before in held[:i]))
            for theirs, held in file_names(architecture, decoder).items()
            for i, name in enumerate(held)
        }

    def __getitem__(self, name: str) -> Array:
        theirs, start = self._place[name]
        rows = self._container.load(theirs)[start : start + self._shapes[name][0]]
        heads = heads_to_turn(self._architecture, self._decoder, name)
        return rows if heads is None else by_halves(rows, heads)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _architecture(container: Container) -> Architecture:
    found = container.metadata.get("general.architecture")
    known = ", ".join(ARCHITECTURES)
    if container.metadata.get("general.type", "model") != "model":
        fail("N883", f"{container.path} holds no model but a {str(container.metadata['general.type'])[:40]!r}")
    if not isinstance(found, str) or found not in ARCHITECTURES:
        what = f"is {found[:60]!r}" if isinstance(found, str) else "is not given"
        fail(
            "N883",
            f"the architecture of {container.path} {what}",
            notes=(f"known are {known} (Mistral is a llama)",),
            hint="only decoders of these families can be read",
        )
    if container.metadata.get("split.count", 1) not in (0, 1):
        fail(
            "N883",
            f"{container.path} is one of several files of a model",
            hint="join them: llama-gguf-split --merge FIRST.gguf WHOLE.gguf",
        )
    return ARCHITECTURES[found]


class _Settings:
    """The keys of one architecture, each read once and checked."""

    def __init__(self, container: Container, architecture: Architecture) -> None:
        self.container = container
        self._prefix = f"{architecture.name}."
        self._left = {k.removeprefix(self._prefix) for k in container.metadata if k.startswith(self._prefix)}

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._take(key, default)
        if type(value) is not int or not 1 <= value <= LARGEST_NUMBER:
            self.refuse(f"{self._prefix}{key} is {_shown(value)}, and it is a whole number from 1")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._take(key, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            self.refuse(f"{self._prefix}{key} is {_shown(value)}, and it is a number above 0")
        return float(value)

    def word(self, key: str, default: str) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            self.refuse(f"{self._prefix}{key} is {_shown(value)}, and it is a word")
        return value

    def done(self) -> None:
        """Nothing may be left that was not read."""
        for key in sorted(self._left - set(SILENT)):
            value = self._take(key, None)
            if key not in NEUTRAL or type(value) is not type(NEUTRAL[key]) or value != NEUTRAL[key]:
                self.refuse(f"{self._prefix}{key} is {_shown(value)}, and a decoder has no equal to it")

    def refuse(self, what: str) -> NoReturn:
        fail("N884", f"{self.container.path}: {what}", hint="nothing of a model is left out in silence")

    def _take(self, key: str, default: object) -> object:
        self._left.discard(key)
        value = self.container.metadata.get(self._prefix + key, default)
        return value if value is not None else self.refuse(f"{self._prefix}{key} is missing")


def _decoder(settings: _Settings, architecture: Architecture) -> Decoder:
    """NeuralError N884, N885."""
    sizes, tensors = _sizes(settings), settings.container.tensors
    epsilon = settings.real(architecture.epsilon_key)
    rope = None if architecture.learned_positions else _rope(settings, sizes["head_dim"])
    settings.done()
    decoder = Decoder(
        **sizes,
        norm=architecture.fixed["norm"],
        epsilon=epsilon,
        activation=architecture.fixed["activation"],
        gated=architecture.fixed["gated"],
        tied="output.weight" not in tensors,
        rope=rope,
        qkv_bias=any(f"blk.0.attn_{part}.bias" in tensors for part in ("q", "qkv")),
        out_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        embedding_scale=architecture.embedding_scale(sizes["d_model"]),
    )
    if wrong := next(architecture.differences(decoder), None):
        settings.refuse(f"{wrong}, in the architecture {architecture.name}")
    return decoder


def _sizes(settings: _Settings) -> dict[str, int]:
    """Under a decoder's names. NeuralError N884 where they contradict each other, N885 without an embedding."""
    tensors = settings.container.tensors
    table = tensors.get("token_embd.weight")
    if table is None:
        fail("N885", f"{settings.container.path} lacks the tensor token_embd.weight")
    d_model, n_head = settings.whole("embedding_length"), settings.whole("attention.head_count")
    n_kv_head, n_layer = settings.whole("attention.head_count_kv", n_head), settings.whole("block_count")
    head_dim, context = (
        settings.whole("attention.key_length", max(d_model // n_head, 1)),
        settings.whole("context_length"),
    )
    if settings.whole("attention.value_length", head_dim) != head_dim:
        settings.refuse("keys and values have heads of different widths")
    if n_head % n_kv_head:
        settings.refuse(f"{n_head} heads cannot share {n_kv_head} heads of keys and values")
    if n_layer > len(tensors):
        settings.refuse(f"{n_layer:,} blocks cannot be made of {len(tensors):,} tensors")
    if (window := settings.whole("attention.sliding_window", context)) < context:
        settings.refuse(f"a sliding window of {window:,}, which llama.cpp does not apply to this architecture")
    if (said := settings.whole("vocab_size", table.shape[0])) != table.shape[0]:
        settings.refuse(f"a vocabulary of {said:,}, and token_embd.weight has {table.shape[0]:,} rows")
    return {
        "vocab_size": table.shape[0],
        "context": context,
        "d_model": d_model,
        "n_layer": n_layer,
        "n_head": n_head,
        "n_kv_head": n_kv_head,
        "head_dim": head_dim,
        "d_ff": settings.whole("feed_forward_length"),
    }


def _rope(settings: _Settings, head_dim: int) -> Rotary:
    base = settings.real("rope.freq_base", 10000.0)
    if settings.whole("rope.dimension_count", head_dim) != head_dim:
        settings.refuse("RoPE turns only a part of each head")
    if head_dim % 2:
        settings.refuse(f"RoPE turns pairs, and a head is {head_dim} wide")
    kind, factor = settings.word("rope.scaling.type", "linear"), settings.real("rope.scaling.factor", 1.0)
    if kind not in ("none", "linear"):
        settings.refuse(f"RoPE is scaled by {kind!r}; known are linear and Llama 3's")
    return Rotary(base, "linear", factor) if kind == "linear" and factor != 1 else Rotary(base)


def _check_tensors(container: Container, architecture: Architecture, decoder: Decoder) -> None:
    """NeuralError N885 for the first tensor that is missing, of another shape, or one too many."""
    shapes = tensor_shapes(decoder)
    names = file_names(architecture, decoder)
    for theirs, held in names.items():
        expected = (sum(shapes[name][0] for name in held), *shapes[held[0]][1:])
        if theirs not in container.tensors:
            fail("N885", f"{container.path} lacks the tensor {theirs}, of the shape {expected}")
        if (found := container.tensors[theirs].shape) != expected:
            fail("N885", f"{theirs} in {container.path} has the shape {found}, and its configuration says {expected}")
    known = {*names, frequencies.NAME} if architecture.factors else {*names}
    if extra := next((name for name in container.tensors if name not in known), None):
        fail(
            "N885",
            f"{container.path} has a tensor {extra[:80]!r}, which the architecture {architecture.name} has not",
            hint="a model with parts of its own cannot be read as one without them",
        )


def _with_factors(container: Container, architecture: Architecture, decoder: Decoder) -> Decoder:
    """With Llama 3's scaling of RoPE, if the file has its factors."""
    if frequencies.NAME not in container.tensors:
        return decoder
    rope = None
    if decoder.rope.scaling == "none" and container.tensors[frequencies.NAME].type == "F32":
        rope = frequencies.scaling(decoder.rope.base, decoder.head_dim, container.load(frequencies.NAME))
    if rope is None:
        fail(
            "N884",
            f"{frequencies.NAME} in {container.path} scales RoPE by factors that are not Llama 3's",
            hint="linear scaling and Llama 3's are known",
        )
    return replace(decoder, rope=rope)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
