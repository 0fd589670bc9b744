"""Rotary positions: how they are written, the angles that a network makes of them, and the turning."""

from __future__ import annotations

from dataclasses import dataclass, field

from neural.layers.arguments import POSITIVE, SIZE, Kind, argument, choice
from neural.layers.effects import Positions
from neural.layers.layer import Effect, Site
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import Arg


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings (Su et al. 2021), with the scaling that stretches them to longer contexts."""

    base: object = argument(POSITIVE, Arg.of(10000.0), doc="the base of the wavelengths")
    scaling: object = argument(choice("none", "linear", "llama3"), Arg.of("none"), doc="how long contexts are reached")
    factor: object = argument(POSITIVE, Arg.of(1.0), doc="by how much the context grows")
    low_frequency_factor: object = argument(POSITIVE, Arg.of(1.0), doc="llama3: turns below which all is scaled")
    high_frequency_factor: object = argument(POSITIVE, Arg.of(4.0), doc="llama3: turns above which nothing is")
    original_max_length: object = argument(SIZE, Arg.of(8192), doc="llama3: the context before scaling")

    def written(self) -> tuple[Arg, ...]:
        """The arguments that its scaling reads."""
        rest = (self.factor, self.low_frequency_factor, self.high_frequency_factor, self.original_max_length)
        return (self.base, *rest[: {"none": 0, "linear": 1, "llama3": 4}[self.scaling.value]])

    def frequencies(self, np, head_dim: int):
        """Radians a position, (head_dim / 2,)."""
        f = 1.0 / self.base.value ** (np.arange(0, head_dim, 2) / head_dim)
        if self.scaling.value == "linear":
            return f / self.factor.value
        if self.scaling.value == "llama3":
            low, high = self.low_frequency_factor.value, self.high_frequency_factor.value
            turns = self.original_max_length.value * f / (2 * np.pi)
            smooth = np.clip((turns - low) / (high - low), 0, 1)
            return (1 - smooth) * f / self.factor.value + smooth * f
        return f


ROPE = Kind(
    "RoPE's base, a number above 0, or Rope(base=…, scaling=…)",
    lambda v: v is None or isinstance(v, Rope) or POSITIVE.accepts(v),
)


def turned(np, x, frequencies, positions):
    """x (B, heads, T, head_dim) with each pair turned by its position's angle."""
    angles = np.concatenate([positions[:, None] * frequencies] * 2, axis=-1)
    first, second = np.split(x, 2, axis=-1)
    return x * np.cos(angles) + np.concatenate([-second, first], axis=-1) * np.sin(angles)


ROTARY = '''
def rotary(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021), (1, T, head_dim) each.

    Of positions (B, T): (B, 1, T, head_dim).
    """
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim)
    angles = (positions[..., None] * frequencies).unsqueeze(-3)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()
'''

ROTARY_LINEAR = '''
def rotary_linear(
    positions: Tensor, head_dim: int, base: float, factor: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions divided by `factor` (Chen et al. 2023)."""
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim) / factor
    angles = (positions[..., None] * frequencies).unsqueeze(-3)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()
'''

ROTARY_LLAMA3 = '''
def rotary_llama3(
    positions: Tensor,
    head_dim: int,
    base: float,
    factor: float,
    low: float,
    high: float,
    original: int,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, long wavelengths stretched as in Llama 3."""
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim)
    turns = original * frequencies / (2 * torch.pi)  # in the original context
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    frequencies = (1 - smooth) * frequencies / factor + smooth * frequencies
    angles = (positions[..., None] * frequencies).unsqueeze(-3)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()
'''

ROTATE = '''
def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((-second, first), dim=-1) * sin
    return turned.type_as(x)
'''

KERAS_ROTARY = '''
def rotary(positions, head_dim, base):
    """Cosines and sines of rotary positions (Su et al. 2021), (T, 1, head_dim) each."""
    steps = ops.arange(0, head_dim, 2, dtype="float32")
    frequencies = 1.0 / base ** (steps / head_dim)
    angles = ops.cast(positions, "float32")[:, None, None] * frequencies
    angles = ops.concatenate((angles, angles), axis=-1)
    return ops.cos(angles), ops.sin(angles)
'''

KERAS_ROTARY_LINEAR = '''
def rotary_linear(positions, head_dim, base, factor):
    """Cosines and sines of rotary positions divided by `factor` (Chen et al. 2023)."""
    steps = ops.arange(0, head_dim, 2, dtype="float32")
    frequencies = 1.0 / base ** (steps / head_dim) / factor
    angles = ops.cast(positions, "float32")[:, None, None] * frequencies
    angles = ops.concatenate((angles, angles), axis=-1)
    return ops.cos(angles), ops.sin(angles)
'''

KERAS_ROTARY_LLAMA3 = '''
def rotary_llama3(positions, head_dim, base, factor, low, high, original):
    """Cosines and sines of rotary positions, long wavelengths stretched as in Llama 3."""
    steps = ops.arange(0, head_dim, 2, dtype="float32")
    frequencies = 1.0 / base ** (steps / head_dim)
    turns = original * frequencies / (2 * math.pi)  # in the original context
    smooth = ops.clip((turns - low) / (high - low), 0.0, 1.0)
    frequencies = (1 - smooth) * frequencies / factor + smooth * frequencies
    angles = ops.cast(positions, "float32")[:, None, None] * frequencies
    angles = ops.concatenate((angles, angles), axis=-1)
    return ops.cos(angles), ops.sin(angles)
'''

KERAS_ROTATE = '''
def rotate(x, rope):
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = (ops.cast(part, x.dtype) for part in rope)
    first, second = ops.split(x, 2, axis=-1)
    return x * cos + ops.concatenate((-second, first), axis=-1) * sin
'''

JAX_ROTARY = '''
def rotary(positions: Array, head_dim: int, base: float) -> tuple[Array, Array]:
    """Cosines and sines of rotary positions (Su et al. 2021), (T, 1, head_dim) each."""
    frequencies = 1.0 / base ** (jnp.arange(0, head_dim, 2) / head_dim)
    angles = jnp.tile(positions[:, None, None] * frequencies, 2)
    return jnp.cos(angles), jnp.sin(angles)
'''

JAX_ROTARY_LINEAR = '''
def rotary_linear(
    positions: Array, head_dim: int, base: float, factor: float
) -> tuple[Array, Array]:
    """Cosines and sines of rotary positions divided by `factor` (Chen et al. 2023)."""
    frequencies = 1.0 / base ** (jnp.arange(0, head_dim, 2) / head_dim) / factor
    angles = jnp.tile(positions[:, None, None] * frequencies, 2)
    return jnp.cos(angles), jnp.sin(angles)
'''

JAX_ROTARY_LLAMA3 = '''
def rotary_llama3(
    positions: Array,
    head_dim: int,
    base: float,
    factor: float,
    low: float,
    high: float,
    original: int,
) -> tuple[Array, Array]:
    """Cosines and sines of rotary positions, long wavelengths stretched as in Llama 3."""
    frequencies = 1.0 / base ** (jnp.arange(0, head_dim, 2) / head_dim)
    turns = original * frequencies / (2 * jnp.pi)  # in the original context
    smooth = jnp.clip((turns - low) / (high - low), 0, 1)
    frequencies = (1 - smooth) * frequencies / factor + smooth * frequencies
    angles = jnp.tile(positions[:, None, None] * frequencies, 2)
    return jnp.cos(angles), jnp.sin(angles)
'''

JAX_ROTATE = '''
def rotate(x: Array, rope: tuple[Array, Array]) -> Array:
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = rope
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate((-second, first), axis=-1)
    return (x * cos + turned * sin).astype(x.dtype)
'''


@dataclass(frozen=True)
class Rotary(Effect):
    """RoPE's cosines and sines at the positions of the tokens, (1, T, head_dim) or (B, 1, T, head_dim) each."""

    head_dim: int
    values: tuple  # of base and scaling, for equality
    written_head_dim: Arg = field(compare=False)
    scaling: str = "none"
    written: tuple[Arg, ...] = field(default=(), compare=False)

    variable = "rope"

    def requires(self) -> tuple[Effect, ...]:
        return (Positions(),)

    def torch(self, site: Site) -> str:
        site.helper({"none": ROTARY, "linear": ROTARY_LINEAR, "llama3": ROTARY_LLAMA3}[self.scaling])
        return self._call(site)

    def keras(self, site: Site) -> str:
        site.helper({"none": KERAS_ROTARY, "linear": KERAS_ROTARY_LINEAR, "llama3": KERAS_ROTARY_LLAMA3}[self.scaling])
        return self._call(site)

    def jax(self, site: Site) -> str:
        site.helper({"none": JAX_ROTARY, "linear": JAX_ROTARY_LINEAR, "llama3": JAX_ROTARY_LLAMA3}[self.scaling])
        return self._call(site)

    def _call(self, site: Site) -> str:
        function = {"none": "rotary", "linear": "rotary_linear", "llama3": "rotary_llama3"}[self.scaling]
        head_dim = site.attribute("head_dim", self.written_head_dim)
        names = ("rope_base", "rope_factor", "rope_low", "rope_high", "rope_original")
        rest = ", ".join(site.attribute(n, a) for n, a in zip(names, self.written, strict=False))
        return f"{function}({site.uses(Positions())}, {head_dim}, {rest})"

    def onnx(self, site: OnnxSite) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, T, head_dim / 2), as RotaryEmbedding takes them."""
        frequencies = self._rope().frequencies(site.np, self.head_dim)
        steps = site.cast(site.uses(Positions()), "float32")
        angles = site.op("Mul", site.op("Unsqueeze", steps, site.constant([-1], "int64")), site.constant(frequencies))
        return site.op("Cos", angles), site.op("Sin", angles)

    def _rope(self) -> Rope:
        names = ("base", "factor", "low_frequency_factor", "high_frequency_factor", "original_max_length")
        given = {n: Arg.of(v) for n, v in zip(names, self.values, strict=False)}
        return Rope(scaling=Arg.of(self.scaling), **given)
