"""From ids to vectors, and where in the sequence they stand."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.arguments import SIZE, argument, choice
from neural.layers.effects import Positions
from neural.layers.layer import Layer, Mismatch, Sample, Shape, Site, Value, Weight, register, size, width
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg, draw


@dataclass(frozen=True)
class Embedding(Layer):
    """A row of a table for each id: int64 (B, T) → float32 (B, T, output_dim)."""

    takes_ids = True

    input_dim: object = argument(SIZE, doc="number of rows: the size of the vocabulary")
    output_dim: object = argument(SIZE, doc="width of a row")

    samples = (Sample("(6,)", "Embedding(input_dim=11, output_dim=4)"),)

    def shape(self, x: Value) -> tuple[Shape]:
        if x.dtype != "int64":
            raise Mismatch(
                "N405",
                f"Embedding takes ids, and this is numbers, {draw(x.shape)}",
                hint="an Embedding reads an input of one axis, such as `input: (1024,)`",
            )
        return ((*x.shape, self.output_dim),)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        return (Weight("weight", (self.input_dim.value, self.output_dim.value), "embedding"),)

    def numpy(self, np, w, x, state):
        return w["weight"][x]

    def torch(self, site: Site) -> str:
        return f"{site.module(f'nn.Embedding({self.input_dim.text}, {self.output_dim.text})')}({site.inputs[0]})"

    def keras(self, site: Site) -> str:
        return f"{site.module(f'layers.Embedding({self.input_dim.text}, {self.output_dim.text})')}({site.inputs[0]})"

    def jax(self, site: Site) -> str:
        return f"{site.module(_jax_table(site, self.input_dim.text, self.output_dim.text))}({site.inputs[0]})"

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.rows("weight", site.inputs[0])


SINUSOIDS = '''
def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of many wavelengths (Vaswani et al. 2017), (T, width)."""
    steps = torch.arange(0, width, 2, device=positions.device)
    angles = positions[..., None] / 10000.0 ** (steps / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
'''

KERAS_SINUSOIDS = '''
def sinusoids(positions, width, dtype):
    """Sines and cosines of many wavelengths (Vaswani et al. 2017), (T, width)."""
    steps = ops.arange(0, width, 2, dtype="float32")
    angles = ops.cast(positions, "float32")[:, None] / 10000.0 ** (steps / width)
    waves = ops.stack((ops.sin(angles), ops.cos(angles)), axis=-1)
    return ops.cast(ops.reshape(waves, (-1, width)), dtype)
'''

JAX_SINUSOIDS = '''
def add_sinusoids(x: Array, positions: Array) -> Array:
    """x plus sines and cosines of many wavelengths (Vaswani et al. 2017), (B, T, d)."""
    width = x.shape[-1]
    angles = positions[:, None] / 10000.0 ** (jnp.arange(0, width, 2) / width)
    waves = jnp.stack((jnp.sin(angles), jnp.cos(angles)), axis=-1)
    return x + waves.reshape(-1, width).astype(x.dtype)
'''


@dataclass(frozen=True)
class PositionalEmbedding(Layer):
    """Adds a vector for each position: (B, T, d) → (B, T, d), T up to max_length."""

    max_length: object = argument(
        SIZE.optional(), Arg.of(None), doc="the longest sequence; by default the input's length"
    )
    inlined = True
    keeps_shape = True
    kind: object = argument(
        choice("learned", "sinusoidal"), Arg.of("learned"), doc="a learned table, or sines and cosines"
    )

    samples = (
        Sample("(6,)", "Embedding(input_dim=11, output_dim=4) PositionalEmbedding(max_length=8)"),
        Sample("(6,)", 'Embedding(input_dim=11, output_dim=4) PositionalEmbedding(kind="sinusoidal")'),
    )

    def length(self, x: Value) -> Arg:
        return x.shape[1] if self.max_length.value is None else self.max_length

    def shape(self, x: Value) -> tuple[Shape]:
        if len(x.shape) != 3:
            raise Mismatch(
                "N406",
                f"{type(self).__name__} takes a sequence of vectors, (B, T, width), and this is {draw(x.shape)}",
                hint="put it after an Embedding",
            )
        if self.length(x).value < x.shape[1].value:
            title = f"positions for {self.length(x).value} tokens, and the input has up to {x.shape[1].value}"
            raise Mismatch("N407", title, argument="max_length", hint=f"write `max_length={x.shape[1].root}`")
        if self.kind.value == "sinusoidal" and width(x).value % 2:
            title = f"sinusoidal positions need an even width, and this is {width(x).value}"
            raise Mismatch("N408", title, argument="kind", hint="use an even width")
        return (x.shape,)

    def weights(self, x: Value) -> tuple[Weight, ...]:
        if self.kind.value == "sinusoidal":
            return ()
        return (Weight("weight", (self.length(x).value, width(x).value), "embedding"),)

    def effects(self, x: Value):
        return (Positions(),)

    def flops(self, x: Value) -> int:
        return size(x.shape)

    def numpy(self, np, w, x, state):
        positions = state["positions"]
        if self.kind.value == "learned":
            return x + w["weight"][positions]
        angles = positions[:, None] / 10000.0 ** (np.arange(0, x.shape[-1], 2) / x.shape[-1])
        return x + np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(len(positions), -1)

    def torch(self, site: Site) -> str:
        positions, x = site.uses(Positions()), site.inputs[0]
        if self.kind.value == "sinusoidal":
            site.helper(SINUSOIDS)
            columns = site.attribute("width", site.shapes[0][-1])
            return f"{x} + sinusoids({positions}, {columns}).type_as({x})"
        length = site.shapes[0][1] if self.max_length.value is None else self.max_length
        table = site.module(f"nn.Embedding({length.text}, {site.shapes[0][-1].text})")
        return f"{x} + {table}({positions})"

    def keras(self, site: Site) -> str:
        positions, x = site.uses(Positions()), site.inputs[0]
        width = site.shapes[0][-1]
        if self.kind.value == "sinusoidal":
            site.helper(KERAS_SINUSOIDS)
            return f"{x} + sinusoids({positions}, {site.attribute('width', width)}, {x}.dtype)"
        length = self.length(Value("", site.shapes[0]))
        table = site.module(f"layers.Embedding({length.text}, {width.text})", shape=site.shapes[0][1:2])
        return f"{x} + {table}({positions})"

    def jax(self, site: Site) -> str:
        positions, x = site.uses(Positions()), site.inputs[0]
        if self.kind.value == "sinusoidal":
            site.helper(JAX_SINUSOIDS)
            return f"add_sinusoids({x}, {positions})"
        length = site.shapes[0][1] if self.max_length.value is None else self.max_length
        return f"{x} + {site.module(_jax_table(site, length.text, site.shapes[0][-1].text))}({positions})"

    def onnx(self, site: OnnxSite) -> Tensor:
        positions, x = site.uses(Positions()), site.inputs[0]
        if self.kind.value == "learned":
            return site.op("Add", x, site.op("Gather", site.weight("weight"), positions))
        width = site.shapes[0][-1].value
        last = site.constant([-1], "int64")
        steps = site.op("Unsqueeze", site.cast(positions, "float32"), last)
        angles = site.op("Div", steps, site.constant(10000.0 ** (site.np.arange(0, width, 2) / width)))
        pairs = (site.op("Unsqueeze", site.op(kind, angles), last) for kind in ("Sin", "Cos"))
        table = site.op("Reshape", site.op("Concat", *pairs, axis=-1), site.constant([0, 0, width], "int64"))
        return site.op("Add", x, table)


def _jax_table(site: Site, rows: str, width: str) -> str:
    return f"nnx.Embed({rows}, {width}, embedding_init={site.initializer('table')}, rngs=rngs)"


register(Embedding)
register(PositionalEmbedding, "PositionalEncoding")
