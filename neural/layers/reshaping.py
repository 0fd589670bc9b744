"""Layers that change a shape or drop numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from neural.layers.arguments import RATE, SIZES, argument
from neural.layers.layer import Layer, Mismatch, Sample, Shape, Site, Value, register
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg, draw


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes numbers at a rate in training and scales the rest up (Srivastava et al. 2014)."""

    rate: object = argument(RATE, doc="the share that is zeroed", stand_in=Arg.of(0.0))

    heeds_training = True
    samples = (Sample("(5,)", "Dropout(0.5)"),)

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def numpy(self, np, w, x, state):
        return x

    def torch(self, site: Site) -> str:
        return f"{site.module(f'nn.Dropout({self.rate.text})')}({site.inputs[0]})"

    def keras(self, site: Site) -> str:
        return f"{site.module(f'layers.Dropout({self.rate.text})')}({site.inputs[0]}, training=training)"

    def jax(self, site: Site) -> str:
        return f"{site.module(f'nnx.Dropout({self.rate.text}, rngs=rngs)')}({site.inputs[0]})"

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.inputs[0]


def _numbers(x: Value, layer: str) -> Arg:
    """The product of the axes but the batch; T counts at its greatest length."""
    axes = [Arg(a.value, a.text, a.root) for a in x.shape[1:]]
    if not axes:
        raise Mismatch("N406", f"{layer} needs an axis beside the batch")
    total = axes[0]
    for axis in axes[1:]:
        total = total.times(axis)
    return total


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes but the batch as one."""

    mixes_positions = True
    samples = (Sample("(4, 5)", "Flatten()"),)

    def shape(self, x: Value) -> tuple[Shape]:
        return ((x.shape[0], _numbers(x, "Flatten")),)

    def numpy(self, np, w, x, state):
        return x.reshape(x.shape[0], -1)

    def torch(self, site: Site) -> str:
        return f"{site.inputs[0]}.flatten(1)"

    def keras(self, site: Site) -> str:
        return f"{site.module('layers.Flatten()')}({site.inputs[0]})"

    def jax(self, site: Site) -> str:
        return f"{site.inputs[0]}.reshape({site.inputs[0]}.shape[0], -1)"

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.op("Flatten", site.inputs[0], axis=1)


@dataclass(frozen=True)
class Reshape(Layer):
    """The same numbers in another shape, the batch aside."""

    target_shape: object = argument(SIZES, doc="the new shape without the batch; one axis may be -1")

    mixes_positions = True
    samples = (Sample("(4, 6)", "Reshape((8, 3))"), Sample("(24,)", "Reshape((2, -1, 3))"))

    def shape(self, x: Value) -> tuple[Shape]:
        total, target = _numbers(x, "Reshape").value, self.target_shape.value
        known = prod(n for n in target if n != -1)
        if total % known or (-1 not in target and total != known):
            raise Mismatch(
                "N404",
                f"{draw(x.shape)} has {total} numbers a row, and {target} has {known}",
                argument="target_shape",
                hint="write -1 for one axis to have it worked out" if -1 not in target else None,
            )
        return ((x.shape[0], *(Arg.of(total // known if n == -1 else n) for n in target)),)

    def numpy(self, np, w, x, state):
        return x.reshape(x.shape[0], *self.target_shape.value)

    def torch(self, site: Site) -> str:
        return f"{site.inputs[0]}.reshape(-1, {', '.join(str(n) for n in self._sizes(site))})"

    def keras(self, site: Site) -> str:
        return f"{site.module(f'layers.Reshape({tuple(self._sizes(site))})')}({site.inputs[0]})"

    jax = torch

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.op("Reshape", site.inputs[0], site.constant([-1, *self._sizes(site)], "int64"))

    def _sizes(self, site: Site) -> list[int]:
        return [a.value for a in self.shape(Value("", site.shapes[0]))[0][1:]]


register(Dropout)
register(Flatten)
register(Reshape)
