"""Activations: the functions, as an argument of other layers and as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from neural.layers.arguments import argument, choice
from neural.layers.layer import Layer, Sample, Shape, Site, Value, register, size
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg


def _gelu(np, x):
    # scipy's erf would be one more dependency; math.erf is exact and the oracle need not be fast
    from math import erf

    return 0.5 * x * (1.0 + np.vectorize(erf, otypes=[x.dtype])(x / np.sqrt(2.0)))


def _softmax(np, x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softplus(np, x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _op(kind: str, **attributes):
    return lambda site, x: site.op(kind, x, **attributes)


def _silu(site, x):
    return site.op("Mul", x, site.op("Sigmoid", x))  # Swish is of opset 24


def _relu_squared(site, x):
    y = site.op("Relu", x)
    return site.op("Mul", y, y)


class Function(NamedTuple):
    """numpy: (np, x) -> y. torch, keras, jax: an expression with x in braces. onnx: (site, x) -> value."""

    numpy: object
    torch: str
    keras: str
    jax: str
    onnx: object


ACTIVATIONS = {
    "linear": Function(lambda np, x: x, "{x}", keras="{x}", jax="{x}", onnx=lambda site, x: x),
    "relu": Function(
        lambda np, x: np.maximum(x, 0), "F.relu({x})", keras="ops.relu({x})", jax="nnx.relu({x})", onnx=_op("Relu")
    ),
    "gelu": Function(
        _gelu,
        "F.gelu({x})",
        keras="ops.gelu({x}, approximate=False)",
        jax="nnx.gelu({x}, approximate=False)",
        onnx=_op("Gelu"),
    ),
    "gelu_tanh": Function(
        lambda np, x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        'F.gelu({x}, approximate="tanh")',
        keras="ops.gelu({x}, approximate=True)",
        jax="nnx.gelu({x}, approximate=True)",
        onnx=_op("Gelu", approximate="tanh"),
    ),
    "silu": Function(
        lambda np, x: x / (1 + np.exp(-x)), "F.silu({x})", keras="ops.silu({x})", jax="nnx.silu({x})", onnx=_silu
    ),
    "swish": Function(
        lambda np, x: x / (1 + np.exp(-x)), "F.silu({x})", keras="ops.silu({x})", jax="nnx.silu({x})", onnx=_silu
    ),
    "tanh": Function(
        lambda np, x: np.tanh(x), "torch.tanh({x})", keras="ops.tanh({x})", jax="jnp.tanh({x})", onnx=_op("Tanh")
    ),
    "sigmoid": Function(
        lambda np, x: 1 / (1 + np.exp(-x)),
        "torch.sigmoid({x})",
        keras="ops.sigmoid({x})",
        jax="nnx.sigmoid({x})",
        onnx=_op("Sigmoid"),
    ),
    "softmax": Function(
        _softmax,
        "F.softmax({x}, dim=-1)",
        keras="ops.softmax({x}, axis=-1)",
        jax="nnx.softmax({x})",
        onnx=_op("Softmax", axis=-1),
    ),
    "leaky_relu": Function(
        lambda np, x: np.where(x > 0, x, 0.2 * x),
        "F.leaky_relu({x}, negative_slope=0.2)",
        keras="ops.leaky_relu({x}, negative_slope=0.2)",
        jax="nnx.leaky_relu({x}, negative_slope=0.2)",
        onnx=_op("LeakyRelu", alpha=0.2),
    ),
    "elu": Function(
        lambda np, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "F.elu({x})",
        keras="ops.elu({x})",
        jax="nnx.elu({x})",
        onnx=_op("Elu"),
    ),
    "softplus": Function(
        _softplus, "F.softplus({x})", keras="ops.softplus({x})", jax="nnx.softplus({x})", onnx=_op("Softplus")
    ),
    "mish": Function(
        lambda np, x: x * np.tanh(_softplus(np, x)),
        "F.mish({x})",
        keras="keras.activations.mish({x})",
        jax="jax.nn.mish({x})",
        onnx=_op("Mish"),
    ),
    "relu_squared": Function(
        lambda np, x: np.maximum(x, 0) ** 2,
        "F.relu({x}).square()",
        keras="ops.square(ops.relu({x}))",
        jax="jnp.square(nnx.relu({x}))",
        onnx=_relu_squared,
    ),
}

ACTIVATION = choice(*ACTIVATIONS)

NAMELESS_IN_KERAS = ("gelu_tanh", "relu_squared")  # no `activation="…"` of keras.layers.Dense means these


@dataclass(frozen=True)
class Activation(Layer):
    """A function applied to each number (softmax: to the last axis)."""

    activation: object = argument(ACTIVATION, doc="the function's name", stand_in=Arg.of("linear"))

    samples = tuple(Sample("(5,)", f'Activation("{name}")') for name in ACTIVATIONS)

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def flops(self, x: Value) -> int:
        return size(x.shape)

    def numpy(self, np, w, x, state):
        return ACTIVATIONS[self.activation.value].numpy(np, x)

    def torch(self, site: Site) -> str:
        return activated(self.activation.value, site.inputs[0])

    def keras(self, site: Site) -> str:
        return keras_activated(self.activation.value, site.inputs[0])

    def jax(self, site: Site) -> str:
        return jax_activated(self.activation.value, site.inputs[0])

    def onnx(self, site: OnnxSite) -> Tensor:
        return ACTIVATIONS[self.activation.value].onnx(site, site.inputs[0])


def keras_activated(name: str, expression: str) -> str:
    """The Keras expression of an activation around another expression."""
    return ACTIVATIONS[name].keras.format(x=expression)


def activated(name: str, expression: str) -> str:
    """The PyTorch expression of an activation around another expression."""
    return ACTIVATIONS[name].torch.format(x=expression)


def jax_activated(name: str, expression: str) -> str:
    """The same in JAX."""
    return ACTIVATIONS[name].jax.format(x=expression)


register(Activation)
