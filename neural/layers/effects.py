"""What layers need beside their inputs. The network makes each once a forward pass and hands it down."""

from __future__ import annotations

from dataclasses import dataclass, field

from neural.layers.layer import Effect, Site
from neural.layers.values import Arg


@dataclass(frozen=True)
class Positions(Effect):
    """Where the tokens stand in the sequence, int64 (T,)."""

    variable = "positions"

    def torch(self, site: Site) -> str:
        ids = site.inputs[0]
        return f"torch.arange({'T' if site.past == '0' else 'past, past + T'}, device={ids}.device)"


CAUSAL_MASK = '''
def causal_mask(
    T: int, past: int, padding: Tensor | None, device: torch.device
) -> Tensor | None:
    """True where a query may look at a key, (T, past + T) or (B, 1, T, past + T).

    None where attention needs no mask: every key is allowed, or `is_causal` says which.
    """
    if padding is None and (past == 0 or T == 1):
        return None
    mask = torch.ones(T, past + T, dtype=torch.bool, device=device).tril(past)
    return mask if padding is None else mask & padding[:, None, None, :].bool()
'''

SLIDING_MASK = '''
def sliding_mask(
    T: int, past: int, window: int, padding: Tensor | None, device: torch.device
) -> Tensor:
    """True where a query may look at a key: itself and the `window - 1` before it."""
    mask = torch.ones(T, past + T, dtype=torch.bool, device=device)
    mask = mask.tril(past).triu(past - window + 1)
    return mask if padding is None else mask & padding[:, None, None, :].bool()
'''


@dataclass(frozen=True)
class CausalMask(Effect):
    """Which keys a query may look at: none after it and, with a window, only the last `window` of them."""

    window: int | None = None
    written: Arg | None = field(default=None, compare=False)

    variable = "mask"

    def torch(self, site: Site) -> str:
        if self.window is None:
            site.helper(CAUSAL_MASK)
            return f"causal_mask(T, {site.past}, attention_mask, {site.inputs[0]}.device)"
        site.helper(SLIDING_MASK)
        window = site.attribute("window", self.written)
        return f"sliding_mask(T, {site.past}, {window}, attention_mask, {site.inputs[0]}.device)"


KEY_MASK = '''
def key_mask(padding: Tensor | None) -> Tensor | None:
    """True for real keys, (B, 1, 1, T), or None where all are."""
    return None if padding is None else padding[:, None, None, :].bool()
'''


@dataclass(frozen=True)
class PaddingMask(Effect):
    """True for real keys, bool (B, 1, 1, S), or None."""

    variable = "padding"

    def torch(self, site: Site) -> str:
        site.helper(KEY_MASK)
        return "key_mask(attention_mask)"


@dataclass(frozen=True)
class RealTokens(Effect):
    """1 for real tokens and 0 for padding, (B, T), or None."""

    variable = "attention_mask"

    def torch(self, site: Site) -> str:
        return "attention_mask"


@dataclass(frozen=True)
class Cache(Effect):
    """The keys and values of earlier tokens, or None."""

    variable = "cache"

    def torch(self, site: Site) -> str:
        return "past_key_values"


ROTARY = '''
def rotary(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021), (T, head_dim) each."""
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim)
    angles = (positions[:, None] * frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()
'''

ROTARY_LINEAR = '''
def rotary_linear(
    positions: Tensor, head_dim: int, base: float, factor: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions divided by `factor` (Chen et al. 2023)."""
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim) / factor
    angles = (positions[:, None] * frequencies).repeat(1, 2)
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
    angles = (positions[:, None] * frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()
'''

ROTATE = '''
def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
'''


@dataclass(frozen=True)
class Rotary(Effect):
    """RoPE's cosines and sines at the positions of the tokens, (T, head_dim) each."""

    head_dim: int
    values: tuple  # of base and scaling, for equality
    written_head_dim: Arg = field(compare=False)
    scaling: str = "none"
    written: tuple[Arg, ...] = field(default=(), compare=False)

    variable = "rope"

    def requires(self) -> tuple[Effect, ...]:
        return (Positions(),)

    def torch(self, site: Site) -> str:
        function = {"none": "rotary", "linear": "rotary_linear", "llama3": "rotary_llama3"}[self.scaling]
        site.helper({"none": ROTARY, "linear": ROTARY_LINEAR, "llama3": ROTARY_LLAMA3}[self.scaling])
        head_dim = site.attribute("head_dim", self.written_head_dim)
        names = ("rope_base", "rope_factor", "rope_low", "rope_high", "rope_original")
        rest = ", ".join(site.attribute(n, a) for n, a in zip(names, self.written, strict=False))
        return f"{function}({site.uses(Positions())}, {head_dim}, {rest})"
