"""Products with a matrix: Dense, Output, and several of them in one."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.activation import (
    ACTIVATION,
    ACTIVATIONS,
    NAMELESS_IN_KERAS,
    activated,
    jax_activated,
    keras_activated,
)
from neural.layers.arguments import BOOLEAN, SIZE, argument
from neural.layers.layer import Layer, Sample, Shape, Site, Value, Weight, register, size, width
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg, operand


@dataclass(frozen=True)
class Dense(Layer):
    """activation(x · weightᵀ + bias) on the last axis, for any rank: (…, d_in) → (…, units)."""

    units: object = argument(SIZE, doc="width of the output")
    activation: object = argument(
        ACTIVATION, Arg.of("linear"), doc="the function applied to the result", stand_in=Arg.of("linear")
    )
    use_bias: object = argument(BOOLEAN, Arg.of(True), doc="whether a bias is added", stand_in=Arg.of(True))

    samples = (
        Sample("(5,)", "Dense(3)"),
        Sample("(4, 5)", 'Dense(3, activation="relu", use_bias=false)'),
        Sample("(5,)", 'Dense(5, activation="gelu") * 2'),
    )

    def shape(self, x: Value) -> tuple[Shape]:
        return ((*x.shape[:-1], self.units),)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        matrix = Weight("weight", (self.units.value, width(x).value), "matrix")
        return (matrix, Weight("bias", (self.units.value,), "zeros")) if self.use_bias.value else (matrix,)

    def flops(self, x: Value) -> int:
        return 2 * size(x.shape) * self.units.value

    def numpy(self, np, w, x, state):
        y = x @ w["weight"].T
        return ACTIVATIONS[self.activation.value].numpy(np, y + w["bias"] if self.use_bias.value else y)

    def torch(self, site: Site) -> str:
        linear = site.module(linear_module(site.shapes[0], self.units.text, self.use_bias))
        return activated(self.activation.value, f"{linear}({site.inputs[0]})")

    def keras(self, site: Site) -> str:
        name = self.activation.value
        inside = "" if name == "linear" or name in NAMELESS_IN_KERAS else f', activation="{name}"'
        dense = site.module(f"layers.Dense({self.units.text}{inside}{keras_bias(self.use_bias)})")
        product = f"{dense}({site.inputs[0]})"
        return keras_activated(name, product) if name in NAMELESS_IN_KERAS else product

    def jax(self, site: Site) -> str:
        linear = site.module(jax_linear(site, self.units.text, self.use_bias))
        return jax_activated(self.activation.value, f"{linear}({site.inputs[0]})")

    def onnx(self, site: OnnxSite) -> Tensor:
        y = site.linear(site.inputs[0], "weight", "bias" if self.use_bias.value else None)
        return ACTIVATIONS[self.activation.value].onnx(site, y)


class Output(Dense):
    """Dense, where a network ends."""

    samples = (Sample("(5,)", "Output(3)"),)


@dataclass(frozen=True)
class Projections(Layer):
    """Several Dense of one input as one product: (…, d_in) → (…, a), (…, b), … The compiler writes it, not programs."""

    units: tuple[Arg, ...]
    use_bias: Arg

    def shape(self, x: Value) -> tuple[Shape, ...]:
        return tuple((*x.shape[:-1], units) for units in self.units)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        total = sum(u.value for u in self.units)
        matrix = Weight("weight", (total, width(x).value), "matrix")
        return (matrix, Weight("bias", (total,), "zeros")) if self.use_bias.value else (matrix,)

    def flops(self, x: Value) -> int:
        return 2 * size(x.shape) * sum(u.value for u in self.units)

    def numpy(self, np, w, x, state):
        y = x @ w["weight"].T + (w["bias"] if self.use_bias.value else 0)
        ends = [sum(u.value for u in self.units[: i + 1]) for i in range(len(self.units) - 1)]
        return tuple(np.split(y, ends, axis=-1))

    def torch(self, site: Site) -> None:
        first, *rest = self.units
        if all(u.text == first.text for u in rest):
            total, split = f"{len(self.units)} * {operand(first.text)}", f"chunk({len(self.units)}, dim=-1)"
        else:
            texts = f"({', '.join(u.text for u in self.units)})"
            widths = site.attribute(f"{site.name}_widths", Arg(tuple(u.value for u in self.units), texts, texts))
            total, split = f"sum({widths})", f"split({widths}, dim=-1)"
        linear = site.module(linear_module(site.shapes[0], total, self.use_bias))
        site.line(f"{', '.join(site.outputs)} = {linear}({site.inputs[0]}).{split}")

    def keras(self, site: Site) -> None:
        first, *rest = self.units
        if all(u.text == first.text for u in rest):
            total, parts = f"{len(self.units)} * {operand(first.text)}", str(len(self.units))
        else:
            q, k, v = self.units
            ends = (q, q.plus(k), q.plus(k.plus(v)))
            written = f"({', '.join(end.text for end in ends)})"
            where = site.attribute(f"{site.name}_ends", Arg(tuple(e.value for e in ends), written, written))
            total, parts = f"{where}[-1]", f"{where}[:-1]"
        dense = site.module(f"layers.Dense({total}{keras_bias(self.use_bias)})")
        site.line(f"{', '.join(site.outputs)} = ops.split({dense}({site.inputs[0]}), {parts}, axis=-1)")

    def jax(self, site: Site) -> None:
        first, *rest = self.units
        if all(u.text == first.text for u in rest):
            total, split = f"{len(self.units)} * {operand(first.text)}", str(len(self.units))
        elif all(u.literal for u in self.units):
            total = str(sum(u.value for u in self.units))
            split = repr(tuple(sum(u.value for u in self.units[: i + 1]) for i in range(len(rest))))
        else:
            texts = f"({', '.join(u.text for u in self.units)})"
            widths = site.attribute(f"{site.name}_widths", Arg(tuple(u.value for u in self.units), texts, texts))
            total, split = f"sum({widths})", f"np.cumsum({widths})[:-1]"
        linear = site.module(jax_linear(site, total, self.use_bias))
        site.line(f"{', '.join(site.outputs)} = jnp.split({linear}({site.inputs[0]}), {split}, axis=-1)")

    def onnx(self, site: OnnxSite) -> tuple[Tensor, ...]:
        y = site.linear(site.inputs[0], "weight", "bias" if self.use_bias.value else None)
        widths = site.constant([u.value for u in self.units], "int64")
        return site.op("Split", y, widths, outputs=len(self.units), axis=-1)


def linear_module(shape: Shape, units: str, use_bias: Arg) -> str:
    """`nn.Linear(…)` for an input of a shape."""
    bias = "" if use_bias.value and use_bias.text == "True" else f", bias={use_bias.text}"
    return f"nn.Linear({shape[-1].text}, {units}{bias})"


def keras_bias(use_bias: Arg) -> str:
    """The argument of keras.layers.Dense, where it is not the default."""
    return "" if use_bias.value and use_bias.text == "True" else f", use_bias={use_bias.text}"


def jax_linear(site: Site, units: str, use_bias: Arg) -> str:
    """`nnx.Linear(…)` for a site's input."""
    bias = "" if use_bias.value and use_bias.text == "True" else f", use_bias={use_bias.text}"
    init = site.initializer("matrix")
    return f"nnx.Linear({site.shapes[0][-1].text}, {units}{bias}, kernel_init={init}, rngs=rngs)"


register(Dense)
register(Output)
