"""What PyTorch keeps of each layer from the forward pass for the backward pass.

A layer computes its gradients from some of its inputs, its output, or tensors of its own: which is fixed by the
derivative of each operation (pytorch: tools/autograd/derivatives.yaml). A tensor that several layers keep is one tensor
in memory, so a rule names inputs and output and leaves the adding up to `activations`. Rotary tables and positions,
which do not grow with batch or depth, are left out.
"""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

from neural.layers.activation import Activation
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding, PositionalEmbedding
from neural.layers.layer import Layer, width
from neural.layers.merging import Add, Concatenate, Multiply
from neural.layers.normalization import BatchNormalization, LayerNormalization, Rescaling, RMSNormalization
from neural.layers.pooling import GlobalAveragePooling1D, GlobalMaxPooling1D, LastToken
from neural.layers.reshaping import Dropout, Flatten, Reshape
from neural.layers.values import Value
from neural.planning.sizes import FLOAT, QUERIES, Setting


class Saved(NamedTuple):
    """What one layer keeps.

    inputs: the places of inputs that are kept; output: whether its output is; extra: bytes of tensors of its own.
    view_of: the place of the input whose memory the output is; None where the output has memory of its own.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: int = 0
    view_of: int | None = None


# What an activation computes its gradient from: what it is given, what it gives, or (relu²) a value between the two.
KEPT_BY_ACTIVATION = {
    **dict.fromkeys(("gelu", "gelu_tanh", "silu", "swish", "leaky_relu", "elu", "softplus", "mish"), "input"),
    **dict.fromkeys(("relu", "tanh", "sigmoid", "softmax"), "output"),
    "relu_squared": "between",
    "linear": "nothing",
}


@singledispatch
def saved(layer: Layer, inputs: tuple[Value, ...], outputs: tuple[Value, ...], setting: Setting) -> Saved:
    """What a layer keeps in training, by its kind. TypeError for a kind without a rule."""
    raise TypeError(f"planning has no rule for what {type(layer).__name__} keeps for the backward pass")


@saved.register
def _(layer: Embedding, inputs, outputs, setting) -> Saved:
    return Saved((0,))


@saved.register
def _(layer: Dense, inputs, outputs, setting) -> Saved:
    """The product keeps its input; the activation may keep what stands between the two, or the output."""
    kept, product = KEPT_BY_ACTIVATION[layer.activation.value], _product(inputs[0], outputs[0], setting)
    between = setting.bytes(*outputs) if kept in ("input", "between") else 0
    return product._replace(output=kept == "output", extra=product.extra + between)


def _product(x: Value, output: Value, setting: Setting) -> Saved:
    """A product of matrices keeps its input, or a copy of it in half precision where it computes in that."""
    if x.dtype == output.dtype:
        return Saved((0,))
    return Saved(extra=setting.bytes(x._replace(dtype=output.dtype)))


@saved.register
def _(layer: Activation, inputs, outputs, setting) -> Saved:
    kept = KEPT_BY_ACTIVATION[layer.activation.value]
    if kept == "nothing":
        return Saved(view_of=0)
    between = setting.bytes(*outputs) if kept == "between" else 0
    return Saved((0,) if kept == "input" else (), kept == "output", between)


@saved.register(Projections)
def _(layer: Projections, inputs, outputs, setting) -> Saved:
    return _product(inputs[0], outputs[0], setting)


@saved.register(Add)
@saved.register(Concatenate)
@saved.register(PositionalEmbedding)
@saved.register(Rescaling)
@saved.register(GlobalAveragePooling1D)
def _(layer: Layer, inputs, outputs, setting) -> Saved:
    return Saved()


@saved.register(Flatten)
@saved.register(Reshape)
@saved.register(LastToken)
def _(layer: Layer, inputs, outputs, setting) -> Saved:
    return Saved(view_of=0)


@saved.register
def _(layer: Multiply, inputs, outputs, setting) -> Saved:
    """All factors, and the products between them."""
    return Saved(tuple(range(len(inputs))), extra=(len(inputs) - 2) * setting.bytes(*outputs))


@saved.register
def _(layer: GlobalMaxPooling1D, inputs, outputs, setting) -> Saved:
    return Saved((0,), output=True)


@saved.register
def _(layer: LayerNormalization, inputs, outputs, setting) -> Saved:
    """Its input, and mean and deviation of each vector."""
    return Saved((0,), extra=2 * FLOAT * setting.rows(inputs[0]))


@saved.register
def _(layer: RMSNormalization, inputs, outputs, setting) -> Saved:
    """Its input, the normalised vectors before the gain, and the root mean squares."""
    return Saved((0,), extra=setting.bytes(inputs[0]) + FLOAT * setting.rows(inputs[0]))


@saved.register
def _(layer: BatchNormalization, inputs, outputs, setting) -> Saved:
    return Saved((0,), extra=2 * FLOAT * width(inputs[0]).value)


@saved.register
def _(layer: Dropout, inputs, outputs, setting) -> Saved:
    """The mask, a byte a number, but for torch's own on a CPU the factors. At rate 0 the input is handed on."""
    if layer.rate.value == 0:
        return Saved(view_of=0)
    factors = setting.device == "cpu" and not setting.own_kernels
    return Saved(extra=setting.bytes(inputs[0]) if factors else setting.numbers(inputs[0].shape))


@saved.register
def _(layer: Attention, inputs, outputs, setting) -> Saved:
    """Queries, keys, values and output; with rotary positions the turned queries and keys and the unturned values.

    Fused kernels keep a number for each query and head and no T × T matrix (Dao et al. 2022). On a CPU torch has none
    with dropout: that keeps three T × T matrices a head and copies of its inputs, keys and values as wide as queries.
    Where a token sees all before it the trainer has its own, which keeps the mask, a byte a pair, and scaled queries;
    beside products in half precision, all three in float32.
    """
    q, k, _ = inputs * 3 if len(inputs) == 1 else inputs
    heads, pairs = layer.num_heads.value, setting.rows(q) * setting.axis(k.shape[1])
    kept, extra = set(), 0
    if layer.qk_norm.value:
        kept |= {0, 0 if len(inputs) == 1 else 1}
        extra += setting.bytes(q, k) + FLOAT * (setting.rows(q) * heads + setting.rows(k) * layer.kv_heads.value)
    if _is_ours(layer, q, setting):
        extra += heads * _seen(setting.rows(q), setting.axis(k.shape[1]))
        if q.dtype != "float32":
            keys = setting.numbers((q if layer.grouped else k).shape)
            return Saved(tuple(sorted(kept)), extra=extra + FLOAT * (setting.numbers(q.shape) + 2 * keys))
        extra += setting.bytes(q)
        if layer.grouped:
            return Saved(tuple(sorted(kept)), extra=extra + 2 * setting.bytes(q))
        apart = layer.turning or layer.qk_norm.value
        kept |= {len(inputs) - 1} if apart else set(range(len(inputs))[-2:])
        return Saved(tuple(sorted(kept)), extra=extra + (setting.bytes(k) if apart else 0))
    if layer.dropout.value > 0 and setting.device == "cpu":
        return Saved(tuple(sorted(kept)), extra=extra + 3 * FLOAT * heads * pairs + 3 * setting.bytes(q))
    if layer.turning or layer.qk_norm.value:
        kept, extra = kept | {len(inputs) - 1}, extra + setting.bytes(q, k)
    else:
        kept = set(range(len(inputs)))
    mask = 0 if layer.window.value is None else FLOAT * pairs // setting.batch  # (T, T), made anew in each layer
    extra += FLOAT * setting.rows(q) * heads + mask
    if layer.qk_norm.value and setting.device == "cpu":
        return Saved(tuple(sorted(kept)), extra=extra + setting.bytes(q))  # what comes out is copied into another order
    return Saved(tuple(sorted(kept)), True, extra)


def _is_ours(layer: Attention, q: Value, setting: Setting) -> bool:
    """Whether the trainer's own attention takes it: causal, with dropout, beside products in float32 or bfloat16."""
    return (
        setting.own_kernels
        and layer.dropout.value > 0
        and layer.causal.value
        and layer.window.value is None
        and q.dtype in ("float32", "bfloat16")
    )


def _seen(rows: int, length: int) -> int:
    """Pairs of a query and a key, of sequences with `rows` queries together, as the trainer's attention groups them."""
    groups = [(first, min(first + QUERIES, length)) for first in range(0, length, QUERIES)]
    return rows // length * sum((last - first) * last for first, last in groups)
