"""What the source of attention is made of: how frameworks write its steps, and functions that they have not."""

from __future__ import annotations

from typing import NamedTuple

from neural.layers.rotary import JAX_ROTATE, KERAS_ROTATE, ROTATE

JAX_DROPOUT_ATTENTION = '''
def dropout_attention(
    q: Array, k: Array, v: Array, mask: Array | None, dropout: nnx.Dropout
) -> Array:
    """Attention with dropout on its weights while training, (B, T, heads, head_dim)."""
    if dropout.deterministic:
        return jax.nn.dot_product_attention(q, k, v, mask=mask)
    return nnx.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        broadcast_dropout=False,
        dropout_rng=dropout.rngs(),
        dropout_rate=dropout.rate,
    )
'''


KERAS_HEADS = '''
def split_heads(x, heads):
    """(B, T, heads * head_dim) → (B, T, heads, head_dim)."""
    B, T, width = ops.shape(x)
    return ops.reshape(x, (B, T, heads, width // heads))


def merge_heads(x):
    """(B, T, heads, head_dim) → (B, T, heads * head_dim)."""
    B, T, heads, head_dim = ops.shape(x)
    return ops.reshape(x, (B, T, heads * head_dim))
'''

KERAS_ATTEND = '''
def attend(q, k, v, mask, dropout, is_causal=False, scale=None):
    """`ops.dot_product_attention` with dropout on its weights."""
    shared = q.shape[2] // k.shape[2]  # by so many queries
    k, v = ops.repeat(k, shared, axis=2), ops.repeat(v, shared, axis=2)
    scores = ops.cast(ops.einsum("btnh,bsnh->bnts", q, k), "float32")
    scores = scores * (q.shape[3] ** -0.5 if scale is None else scale)
    if is_causal:
        positions = ops.arange(ops.shape(q)[1])
        mask = positions <= positions[:, None]
    if mask is not None:
        scores = ops.where(mask, scores, -1e30)
    weights = dropout(ops.cast(ops.softmax(scores), v.dtype), training=True)
    return ops.einsum("bnts,bsnh->btnh", weights, v)
'''


class Words(NamedTuple):
    """What the frameworks call what they all do before the product."""

    split: str  # x, (B, T, n · head_dim), apart by its n heads
    norm: str  # the module that normalises a head
    rotate: str  # source of the function `rotate`
    note: str = ""


TORCH = Words(
    "{x}.unflatten(-1, ({n}, -1)).transpose(1, 2)",
    "nn.RMSNorm({head_dim}, eps=1e-06)",
    ROTATE,
    "# heads beside the batch: (B, heads, T, head_dim)",
)
KERAS = Words("split_heads({x}, {n})", "layers.RMSNormalization(epsilon=1e-6)", KERAS_ROTATE)
JAX = Words(
    "{x}.reshape(*{x}.shape[:2], {n}, -1)",
    "nnx.RMSNorm({head_dim}, epsilon=1e-06, rngs=rngs)",
    JAX_ROTATE,
    "# heads behind the length: (B, T, heads, head_dim)",
)
