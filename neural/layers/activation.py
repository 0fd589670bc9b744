"""Activations: the functions, as an argument of other layers and as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from neural.layers.arguments import argument, choice
from neural.layers.layer import Layer, Sample, Shape, Site, Value, register, size
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


class Function(NamedTuple):
    """numpy: (np, x) -> y. torch: an expression with x in braces."""

    numpy: object
    torch: str


ACTIVATIONS = {
    "linear": Function(lambda np, x: x, "{x}"),
    "relu": Function(lambda np, x: np.maximum(x, 0), "F.relu({x})"),
    "gelu": Function(_gelu, "F.gelu({x})"),
    "gelu_tanh": Function(
        lambda np, x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        'F.gelu({x}, approximate="tanh")',
    ),
    "silu": Function(lambda np, x: x / (1 + np.exp(-x)), "F.silu({x})"),
    "swish": Function(lambda np, x: x / (1 + np.exp(-x)), "F.silu({x})"),
    "tanh": Function(lambda np, x: np.tanh(x), "torch.tanh({x})"),
    "sigmoid": Function(lambda np, x: 1 / (1 + np.exp(-x)), "torch.sigmoid({x})"),
    "softmax": Function(_softmax, "F.softmax({x}, dim=-1)"),
    "leaky_relu": Function(lambda np, x: np.where(x > 0, x, 0.2 * x), "F.leaky_relu({x}, negative_slope=0.2)"),
    "elu": Function(lambda np, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), "F.elu({x})"),
    "softplus": Function(_softplus, "F.softplus({x})"),
    "mish": Function(lambda np, x: x * np.tanh(_softplus(np, x)), "F.mish({x})"),
    "relu_squared": Function(lambda np, x: np.maximum(x, 0) ** 2, "F.relu({x}).square()"),
}

ACTIVATION = choice(*ACTIVATIONS)


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


def activated(name: str, expression: str) -> str:
    """The PyTorch expression of an activation around another expression."""
    return ACTIVATIONS[name].torch.format(x=expression)


register(Activation)
