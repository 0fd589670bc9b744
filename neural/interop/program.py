"""A decoder as a program of the language, for people to read, change and train on."""

from __future__ import annotations

import re

from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.interop.decoder import Decoder
from neural.syntax.format import format_file
from neural.syntax.literals import write_string
from neural.syntax.parser import parse

# Fine-tuning, as most of the published recipes have it: whoever imports weights goes on from them.
TRAINING = """
  loss: "sparse_categorical_crossentropy"
  optimizer: AdamW(learning_rate=2e-5, beta_1=0.9, beta_2=0.95, epsilon=1e-8, weight_decay=0.1)
  lr_schedule: CosineDecay(warmup_steps=100, min_learning_rate=2e-6)
  metrics: ["perplexity"]

  train { steps: 1000  batch_size: 1  gradient_accumulation: 16  gradient_clip: 1.0 }
"""


def program_text(
    decoder: Decoder, name: str, *, weights: str | None = None, tokenizer: str | None = None, title: str = ""
) -> str:
    """The program of a network `name`, in the style that `neural fmt` writes.

    weights, tokenizer: the names of files that it starts from, relative to its own. title: a comment above it.
    """
    params = _params(decoder)
    passed = {n: p for n, p in _BLOCK_PARAMETERS.items() if p in params}
    comment = re.sub(r"\s+", " ", title).strip()
    lines = [
        *([f"# {comment}", ""] if comment else []),
        *(f"param {n} = {_number(v)}" for n, v in params.items()),
        "",
        f"define Block({', '.join(passed)}) {{",
        *_attention(decoder),
        *_mlp(decoder),
        "}",
        "",
        *_network(decoder, name, passed, weights, tokenizer),
    ]
    return _formatted("\n".join(lines))


def _network(d: Decoder, name: str, passed: dict[str, str], weights: str | None, tokenizer: str | None) -> list[str]:
    return [
        f"network {name} {{",
        "input: ($context,)",
        *([f"weights: {write_string(weights)}"] if weights else []),
        *([f"tokenizer: {write_string(tokenizer)}"] if tokenizer else []),
        "",
        "layers:",
        "tokens = Embedding(input_dim=$vocab_size, output_dim=$d_model)",
        *_scaled(d),
        *(["positions = PositionalEmbedding(max_length=$context)"] if d.rope is None else []),
        *(["Dropout(rate=$dropout)"] if d.dropout > 0 and d.norm == "layer" else []),
        f"blocks = Block({', '.join(f'{n}=${p}' for n, p in passed.items())}) * $n_layer",
        f"norm = {_norm(d)}",
        f"head = Dense(units=$vocab_size{_bias(d.head_bias)}{', tied_to=tokens' if d.tied else ''})",
        TRAINING,
        "}",
    ]


# The parameter of the block's `define` → the file's `param`.
_BLOCK_PARAMETERS = {
    "d_model": "d_model",
    "heads": "n_head",
    "kv_heads": "n_kv_head",
    "head_dim": "head_dim",
    "d_ff": "d_ff",
    "dropout": "dropout",
}


def _params(d: Decoder) -> dict[str, int | float]:
    params = {"vocab_size": d.vocab_size, "context": d.context, "d_model": d.d_model, "n_layer": d.n_layer}
    params["n_head"] = d.n_head
    if d.n_kv_head != d.n_head:
        params["n_kv_head"] = d.n_kv_head
    if _wide(d):
        params["head_dim"] = d.head_dim
    params["d_ff"] = d.d_ff
    if d.rope is not None:
        params["rope_base"] = d.rope.base
    if d.dropout > 0:
        params["dropout"] = d.dropout
    return params


def _wide(d: Decoder) -> bool:
    """Whether the heads together are not as wide as the stream, so that their width must be said."""
    return d.head_dim * d.n_head != d.d_model


def _attention(d: Decoder) -> list[str]:
    return ["Residual {", f"attention_norm = {_norm(d)}", *_attention_layers(d), *_residual_dropout(d), "}"]


def _attention_layers(d: Decoder) -> list[str]:
    """The composite where its one `use_bias` says it all, else its parts."""
    grouped = ["num_kv_heads=$kv_heads"] if d.n_kv_head != d.n_head else []
    rest = ["causal=true", *_attention_options(d)]
    if d.qkv_bias == d.out_bias:
        wide = ["key_dim=$head_dim"] if _wide(d) else []
        biases = [] if d.qkv_bias else ["use_bias=false"]
        arguments = ["num_heads=$heads", *wide, *grouped, *rest, *biases]
        return [f"attention = MultiHeadAttention({', '.join(arguments)})"]
    whole = "$heads * $head_dim" if _wide(d) else "$d_model"
    part = "$kv_heads * $head_dim" if _wide(d) else "$d_model / $heads * $kv_heads"
    part = part if grouped else whole
    projections = [
        f"{n} = Dense(attention_norm, units={units}{_bias(d.qkv_bias)})"
        for n, units in (("q", whole), ("k", part), ("v", part))
    ]
    arguments = ["q", "k", "v", "num_heads=$heads", *grouped, *rest]
    return [
        *projections,
        f"attention = Attention({', '.join(arguments)})",
        f"out = Dense(units=$d_model{_bias(d.out_bias)})",
    ]


def _attention_options(d: Decoder) -> list[str]:
    options = {
        "rope": _rope(d) if d.rope else None,
        "qk_norm": "true" if d.qk_norm else None,
        "scale": None if d.scale is None else _number(d.scale),
        "window": d.window,
        "dropout": "$dropout" if d.dropout > 0 else None,
    }
    return [f"{name}={value}" for name, value in options.items() if value is not None]


def _rope(d: Decoder) -> str:
    rope = d.rope
    if rope.scaling == "none":
        return "$rope_base"
    arguments = ["base=$rope_base", f"scaling={write_string(rope.scaling)}", f"factor={_number(rope.factor)}"]
    if rope.scaling == "llama3":
        arguments += [
            f"low_frequency_factor={_number(rope.low_frequency_factor)}",
            f"high_frequency_factor={_number(rope.high_frequency_factor)}",
            f"original_max_length={rope.original_max_length}",
        ]
    return f"Rope({', '.join(arguments)})"


def _mlp(d: Decoder) -> list[str]:
    bias, activation = _bias(d.mlp_bias), f"activation={write_string(d.activation)}"
    if d.gated:
        inner = [
            f"gate = Dense(units=$d_ff, {activation}{bias})",
            f"up = Dense(mlp_norm, units=$d_ff{bias})",
            "Multiply(gate, up)",
        ]
    else:
        inner = [f"up = Dense(units=$d_ff, {activation}{bias})"]
    down = f"down = Dense(units=$d_model{bias})"
    return ["Residual {", f"mlp_norm = {_norm(d)}", *inner, down, *_residual_dropout(d), "}"]


def _residual_dropout(d: Decoder) -> list[str]:
    """GPT-2 has one on each branch; families of rotary positions have it on the attention weights alone."""
    return ["Dropout(rate=$dropout)"] if d.dropout > 0 and d.norm == "layer" else []


def _scaled(d: Decoder) -> list[str]:
    if d.embedding_scale is None:
        return []
    root = d.embedding_scale == d.d_model**0.5
    return [f"Rescaling(scale={'$d_model ** 0.5' if root else _number(d.embedding_scale)})"]


def _norm(d: Decoder) -> str:
    return f"{'LayerNormalization' if d.norm == 'layer' else 'RMSNormalization'}(epsilon={_number(d.epsilon)})"


def _bias(there: bool) -> str:
    return "" if there else ", use_bias=false"


def _number(value: int | float) -> str:
    return re.sub(r"e([+-])0*", r"e\1", repr(value)).replace("e+", "e")


def _formatted(text: str) -> str:
    file, errors = parse(Source("model.neural", text))
    if errors:
        raise NeuralError(*errors)
    return format_file(file)
