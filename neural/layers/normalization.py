"""Normalisation, and scaling by a constant."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.arguments import BOOLEAN, NUMBER, POSITIVE, RATE, argument
from neural.layers.layer import Layer, Sample, Shape, Site, Value, Weight, register, size, width
from neural.layers.merging import product_operand
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg


@dataclass(frozen=True)
class LayerNormalization(Layer):
    """(x - mean) / sqrt(variance + epsilon) · weight + bias over the last axis (Ba et al. 2016)."""

    epsilon: object = argument(POSITIVE, Arg.of(1e-3), doc="added to the variance", stand_in=Arg.of(1e-5))
    use_bias: object = argument(BOOLEAN, Arg.of(True), doc="whether a bias is added", stand_in=Arg.of(True))

    samples = (
        Sample("(5,)", "LayerNormalization()"),
        Sample("(4, 5)", "LayerNormalization(epsilon=1e-5, use_bias=false)"),
    )

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        scale = Weight("weight", (width(x).value,), "ones")
        return (scale, Weight("bias", (width(x).value,), "zeros")) if self.use_bias.value else (scale,)

    def flops(self, x: Value) -> int:
        return 8 * size(x.shape)

    def numpy(self, np, w, x, state):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + self.epsilon.value) * w["weight"]
        return y + w["bias"] if self.use_bias.value else y

    def torch(self, site: Site) -> str:
        bias = "" if self.use_bias.text == "True" else f", bias={self.use_bias.text}"
        epsilon = "" if self.epsilon.literal and self.epsilon.value == 1e-5 else f", eps={self.epsilon.text}"
        return f"{site.module(f'nn.LayerNorm({site.shapes[0][-1].text}{epsilon}{bias})')}({site.inputs[0]})"

    def keras(self, site: Site) -> str:
        center = "" if self.use_bias.text == "True" else f", center={self.use_bias.text}"
        norm = site.module(f"layers.LayerNormalization(epsilon={self.epsilon.text}{center})")
        return f"{norm}({site.inputs[0]})"

    def jax(self, site: Site) -> str:
        bias = "" if self.use_bias.text == "True" else f", use_bias={self.use_bias.text}"
        # the fast variance, E[x²] - E[x]², loses its digits where the mean is large
        given = f"{site.shapes[0][-1].text}, epsilon={self.epsilon.text}{bias}, use_fast_variance=False, rngs=rngs"
        return f"{site.module(f'nnx.LayerNorm({given})')}({site.inputs[0]})"

    def onnx(self, site: OnnxSite) -> Tensor:
        bias = site.weight("bias") if self.use_bias.value else None
        return site.op("LayerNormalization", site.inputs[0], site.weight("weight"), bias, epsilon=self.epsilon.value)


@dataclass(frozen=True)
class RMSNormalization(Layer):
    """x / sqrt(mean(x²) + epsilon) · weight over the last axis (Zhang and Sennrich 2019)."""

    epsilon: object = argument(POSITIVE, Arg.of(1e-6), doc="added to the mean square", stand_in=Arg.of(1e-5))

    samples = (Sample("(5,)", "RMSNormalization()"), Sample("(4, 5)", "RMSNormalization(epsilon=1e-5)"))

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        return (Weight("weight", (width(x).value,), "ones"),)

    def flops(self, x: Value) -> int:
        return 4 * size(x.shape)

    def numpy(self, np, w, x, state):
        return rms_normalized(np, x, self.epsilon.value) * w["weight"]

    def torch(self, site: Site) -> str:
        return f"{site.module(f'nn.RMSNorm({site.shapes[0][-1].text}, eps={self.epsilon.text})')}({site.inputs[0]})"

    def keras(self, site: Site) -> str:
        return f"{site.module(f'layers.RMSNormalization(epsilon={self.epsilon.text})')}({site.inputs[0]})"

    def jax(self, site: Site) -> str:
        norm = site.module(f"nnx.RMSNorm({site.shapes[0][-1].text}, epsilon={self.epsilon.text}, rngs=rngs)")
        return f"{norm}({site.inputs[0]})"

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.op("RMSNormalization", site.inputs[0], site.weight("weight"), epsilon=self.epsilon.value)


def rms_normalized(np, x, epsilon: float):
    """x over its root mean square."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """Normalises each feature (the last axis) by running statistics of the batch (Ioffe and Szegedy 2015)."""

    momentum: object = argument(
        RATE, Arg.of(0.99), doc="the share of the old statistics that a step keeps, as in Keras", stand_in=Arg.of(0.9)
    )
    epsilon: object = argument(POSITIVE, Arg.of(1e-3), doc="added to the variance", stand_in=Arg.of(1e-5))

    heeds_training = True
    samples = (
        Sample("(5,)", "BatchNormalization()"),
        Sample("(4, 5)", "BatchNormalization(momentum=0.9, epsilon=1e-5)"),
    )

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        shape = (width(x).value,)
        trained = (Weight("weight", shape, "ones"), Weight("bias", shape, "zeros"))
        return (*trained, Weight("running_mean", shape, "zeros", False), Weight("running_var", shape, "ones", False))

    def flops(self, x: Value) -> int:
        return 4 * size(x.shape)

    def numpy(self, np, w, x, state):
        return (x - w["running_mean"]) / np.sqrt(w["running_var"] + self.epsilon.value) * w["weight"] + w["bias"]

    def torch(self, site: Site) -> str:
        rest = f"eps={self.epsilon.text}, momentum={_complement(self.momentum)}"
        norm, x = site.module(f"nn.BatchNorm1d({site.shapes[0][-1].text}, {rest})"), site.inputs[0]
        if len(site.shapes[0]) == 2:
            return f"{norm}({x})"
        return f"{norm}({x}.flatten(0, -2)).view_as({x})"

    def keras(self, site: Site) -> str:
        arguments = f"momentum={self.momentum.text}, epsilon={self.epsilon.text}"
        return f"{site.module(f'layers.BatchNormalization({arguments})')}({site.inputs[0]}, training=training)"

    def jax(self, site: Site) -> str:
        given = f"momentum={self.momentum.text}, epsilon={self.epsilon.text}, use_fast_variance=False, rngs=rngs"
        return f"{site.module(f'nnx.BatchNorm({site.shapes[0][-1].text}, {given})')}({site.inputs[0]})"

    def onnx(self, site: OnnxSite) -> Tensor:
        # BatchNormalization of ONNX has the features on axis 1, and ours are on the last
        variance = site.op("Add", site.weight("running_var"), site.constant(self.epsilon.value))
        scale = site.op("Div", site.weight("weight"), site.op("Sqrt", variance))
        centred = site.op("Sub", site.inputs[0], site.weight("running_mean"))
        return site.op("Add", site.op("Mul", centred, scale), site.weight("bias"))


@dataclass(frozen=True)
class Rescaling(Layer):
    """x · scale, as Gemma multiplies its embedding by the square root of its width."""

    scale: object = argument(NUMBER, doc="the factor", stand_in=Arg.of(1.0))
    inlined = True
    keeps_shape = True

    samples = (Sample("(5,)", "Rescaling(0.5)"), Sample("(4, 5)", "Dense(3) Rescaling(scale=3.0)"))

    def shape(self, x: Value) -> tuple[Shape]:
        return (x.shape,)

    def flops(self, x: Value) -> int:
        return size(x.shape)

    def numpy(self, np, w, x, state):
        return x * self.scale.value

    def torch(self, site: Site) -> str:
        return f"{product_operand(site.inputs[0])} * {site.attribute('scale', self.scale)}"

    def keras(self, site: Site) -> str:
        return self.torch(site)

    jax = torch

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.op("Mul", site.inputs[0], site.constant(self.scale.value))


def _complement(momentum: Arg) -> str:
    return repr(round(1 - momentum.value, 12)) if momentum.literal else f"1 - {momentum.text}"


register(LayerNormalization)
register(RMSNormalization)
register(BatchNormalization)
register(Rescaling)
