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
from neural.planning.sizes import FLOAT, Setting


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
    """The mask, a byte a number, and torch's own on a CPU the factors; the trainer's there draws again. At rate 0 the
    input is handed on."""
    if layer.rate.value == 0:
        return Saved(view_of=0)
    if setting.own_kernels:
        return Saved()
    return Saved(extra=setting.bytes(inputs[0]) if setting.device == "cpu" else setting.numbers(inputs[0].shape))


@saved.register
def _(layer: Attention, inputs, outputs, setting) -> Saved:
    """Queries, keys, values and output; with rotary positions the turned queries and keys and the unturned values.

    Fused kernels keep a number for each query and head and no T × T matrix (Dao et al. 2022), and the trainer's on a
    CPU draw again what is dropped. With dropout torch has none there: it keeps three T × T matrices a head and copies
    of its inputs, keys and values as wide as queries.
    """
    q, k, _ = inputs * 3 if len(inputs) == 1 else inputs
    heads, pairs = layer.num_heads.value, setting.rows(q) * setting.axis(k.shape[1])
    kept, extra = set(), 0
    if layer.qk_norm.value:
        kept |= {0, 0 if len(inputs) == 1 else 1}
        extra += setting.bytes(q, k) + FLOAT * (setting.rows(q) * heads + setting.rows(k) * layer.kv_heads.value)
    ours = setting.own_kernels and sees_all_before(layer) and q.dtype in ("float32", "bfloat16")
    if layer.dropout.value > 0 and setting.device == "cpu" and not ours:
        return Saved(tuple(sorted(kept)), extra=extra + 3 * FLOAT * heads * pairs + 3 * setting.bytes(q))
    if layer.turning or layer.qk_norm.value:
        kept, extra = kept | {len(inputs) - 1}, extra + setting.bytes(q, k)
    else:
        kept = set(range(len(inputs)))
    mask = 0 if layer.window.value is None else FLOAT * pairs // setting.batch  # (T, T), made anew in each layer
    extra += FLOAT * setting.rows(q) * heads + mask
    if layer.qk_norm.value and setting.device == "cpu" and not ours:
        return Saved(tuple(sorted(kept)), extra=extra + setting.bytes(q))  # what comes out is copied into another order
    return Saved(tuple(sorted(kept)), True, extra)


def sees_all_before(layer: Attention) -> bool:
    """Whether a token attends to itself and all before it: the trainer's own attention on a CPU knows no other."""
    return bool(layer.causal.value) and layer.window.value is None
