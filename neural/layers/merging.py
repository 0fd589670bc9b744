"""Layers that bring several values together."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.arguments import INTEGER, argument
from neural.layers.layer import Layer, Mismatch, Sample, Shape, Site, Value, register, size
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg, draw, same


class _Elementwise(Layer):
    arity = (2, 1 << 16)
    inlined = True
    operator: str

    def shape(self, *inputs: Value) -> tuple[Shape]:
        first = inputs[0]
        for other in inputs[1:]:
            if not same(first.shape, other.shape):
                shapes = f"{draw(first.shape)} and {draw(other.shape)}"
                title = f"{type(self).__name__} needs equal shapes, and these are {shapes}"
                raise Mismatch("N401", title)
        return (first.shape,)

    def flops(self, *inputs: Value) -> int:
        return (len(inputs) - 1) * size(inputs[0].shape)

    def torch(self, site: Site) -> str:
        operands = map(product_operand, site.inputs) if self.operator == "*" else site.inputs
        return f" {self.operator} ".join(operands)

    def keras(self, site: Site) -> str:
        return self.torch(site)

    jax = torch

    def onnx(self, site: OnnxSite) -> Tensor:
        total = site.inputs[0]
        for x in site.inputs[1:]:
            total = site.op({"+": "Add", "*": "Mul"}[self.operator], total, x)
        return total


def product_operand(expression: str) -> str:
    """An expression that can stand beside a `*`."""
    return f"({expression})" if " + " in expression else expression


@dataclass(frozen=True)
class Add(_Elementwise):
    """The sum of values of one shape."""

    operator = "+"
    samples = (
        Sample("(5,)", "a = Dense(3) b = Dense(input, 3) Add(a, b)"),
        Sample("(5,)", "a = Dense(5) Add(a, input, a)"),
    )

    def numpy(self, np, w, *inputs, state):
        return sum(inputs[1:], inputs[0])


@dataclass(frozen=True)
class Multiply(_Elementwise):
    """The product, number by number, of values of one shape."""

    operator = "*"
    samples = (Sample("(5,)", 'a = Dense(3, activation="silu") b = Dense(input, 3) Multiply(a, b)'),)

    def numpy(self, np, w, *inputs, state):
        product = inputs[0]
        for x in inputs[1:]:
            product = product * x
        return product


@dataclass(frozen=True)
class Concatenate(Layer):
    """Values side by side along an axis; the other axes are equal."""

    axis: object = argument(INTEGER, Arg.of(-1), doc="the axis, the batch counted as 0; by default the last")

    arity = (2, 1 << 16)
    samples = (
        Sample("(5,)", "a = Dense(3) b = Dense(input, 4) Concatenate(a, b)"),
        Sample("(4, 5)", "a = Dense(5) Concatenate(a, input, axis=1)"),
    )

    def shape(self, *inputs: Value) -> tuple[Shape]:
        rank = len(inputs[0].shape)
        axis = self.axis.value % rank if -rank <= self.axis.value < rank else 0
        if axis == 0 or inputs[0].shape[axis].axis:
            there = -rank <= self.axis.value < rank
            title = f"{draw(inputs[0].shape)} cannot be joined along axis {self.axis.value}"
            raise Mismatch(
                "N404",
                title if there else f"{draw(inputs[0].shape)} has no axis {self.axis.value}",
                argument="axis",
                hint="name an axis of fixed length, such as the last: `axis=-1`",
            )
        first = inputs[0].shape
        total = first[axis]
        for other in inputs[1:]:
            if len(other.shape) != rank or not same(_without(first, axis), _without(other.shape, axis)):
                raise Mismatch(
                    "N401",
                    f"Concatenate needs shapes that differ in axis {axis} alone: {draw(first)} and {draw(other.shape)}",
                )
            total = total.plus(other.shape[axis])
        return ((*first[:axis], total, *first[axis + 1 :]),)

    def numpy(self, np, w, *inputs, state):
        return np.concatenate(inputs, axis=self.axis.value)

    def torch(self, site: Site) -> str:
        return f"torch.cat(({', '.join(site.inputs)}), dim={site.attribute('axis', self.axis)})"

    def keras(self, site: Site) -> str:
        return f"ops.concatenate(({', '.join(site.inputs)}), axis={site.attribute('axis', self.axis)})"

    def jax(self, site: Site) -> str:
        return f"jnp.concatenate(({', '.join(site.inputs)}), axis={site.attribute('axis', self.axis)})"

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.op("Concat", *site.inputs, axis=self.axis.value)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


register(Add)
register(Multiply)
register(Concatenate)
