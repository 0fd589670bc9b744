"""What was meant by a name that nothing has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neural.diagnostics.diagnostic import Edit, Fix
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Span

# What PyTorch, Hugging Face or papers call a thing: what it is called here.
ELSEWHERE = {
    "linear": "Dense", "layernorm": "LayerNormalization", "rmsnorm": "RMSNormalization",
    "batchnorm": "BatchNormalization", "batchnorm1d": "BatchNormalization", "concat": "Concatenate",
    "cat": "Concatenate", "mul": "Multiply", "mha": "MultiHeadAttention", "out_features": "units",
    "bias": "use_bias", "p": "rate", "probability": "rate", "eps": "epsilon", "num_embeddings": "input_dim",
    "vocab_size": "input_dim", "embedding_dim": "output_dim", "n_head": "num_heads", "n_heads": "num_heads",
    "heads": "num_heads", "n_kv_heads": "num_kv_heads", "is_causal": "causal", "theta": "base",
    "block_size": "max_length", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu_squared",
    "mse": "mean_squared_error", "mae": "mean_absolute_error", "bce": "binary_crossentropy",
    "cross_entropy": "sparse_categorical_crossentropy", "crossentropy": "sparse_categorical_crossentropy",
    "lr": "learning_rate", "min_lr": "min_learning_rate", "warmup": "warmup_steps", "cosine": "CosineDecay",
    "scheduler": "lr_schedule", "training": "train", "max_iters": "steps", "max_steps": "steps",
    "grad_clip": "gradient_clip", "gradient_accumulation_steps": "gradient_accumulation", "gpu": "cuda",
}  # fmt: skip


def meant(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is called `name` elsewhere, else the nearest in spelling."""
    known = tuple(candidates)
    elsewhere = ELSEWHERE.get(name.lower())
    return elsewhere if elsewhere in known else nearest(name, known)


def suggestion(
    name: str, candidates: Iterable[str], place: Span, otherwise: str | None, mark: str = ""
) -> dict[str, Any]:
    """Label, hint and fix of a message: what was meant, else `otherwise`.

    mark: what stands before the name, or `"` for quotes around it.
    """
    near = meant(name, candidates)
    if near is None:
        return {"label": "unknown", "hint": otherwise}
    written = f'"{near}"' if mark == '"' else f"{mark}{near}"
    shown = written if mark == '"' else f"`{written}`"
    return {"label": f"did you mean {shown}?", "fix": Fix(f"write {shown}", (Edit(place, written),))}
