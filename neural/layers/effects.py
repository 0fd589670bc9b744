"""What layers need beside their inputs. The network makes each once a forward pass and hands it down."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.layer import Effect, Site
from neural.layers.onnx_site import OnnxSite, Tensor

TOKEN_POSITIONS = '''
def token_positions(
    T: int, past: int, position_ids: Tensor | None, device: torch.device
) -> Tensor:
    """Where the tokens stand: after the past, (T,), or where the caller says, (B, T)."""
    if position_ids is not None:
        return position_ids
    return torch.arange(past, past + T, device=device)
'''


@dataclass(frozen=True)
class Positions(Effect):
    """Where the tokens stand in the sequence, int64 (T,), or (B, T) where the caller says."""

    variable = "positions"

    def torch(self, site: Site) -> str:
        if site.past == "0":
            return f"torch.arange(T, device={site.inputs[0]}.device)"
        site.helper(TOKEN_POSITIONS)
        return f"token_positions(T, past, position_ids, {site.inputs[0]}.device)"

    def keras(self, site: Site) -> str:
        return "ops.arange(T)" if site.past == "0" else "past + ops.arange(T)"

    def jax(self, site: Site) -> str:
        return "jnp.arange(T)" if site.past == "0" else "past + jnp.arange(T)"  # past is traced: no end of a range

    def onnx(self, site: OnnxSite) -> Tensor:
        """int64 (B, T), or (1, T) without a mask: given, or counted from the first token that is no padding."""
        if site.position_ids is not None:
            return site.position_ids
        slots = site.op("Unsqueeze", new_slots(site), site.constant([0], "int64"))
        if site.attention_mask is None:
            return slots
        first = site.op("ArgMax", site.cast(site.attention_mask, "float32"), axis=1, keepdims=1)
        return site.op("Max", site.op("Sub", slots, first), site.constant(0, "int64"))


def new_slots(site: OnnxSite) -> Tensor:
    """The places of the network's tokens among all that the mask has, the past included, int64 (T,)."""
    length = site.length()
    total = length if site.attention_mask is None else site.length(site.attention_mask)
    return site.op("Range", site.op("Sub", total, length), total, site.constant(1, "int64"))


@dataclass(frozen=True)
class RealTokens(Effect):
    """1 for real tokens and 0 for padding, (B, T), or None."""

    variable = "attention_mask"

    def torch(self, site: Site) -> str:
        return "attention_mask"

    def keras(self, site: Site) -> str:
        return "attention_mask"

    jax = torch

    def onnx(self, site: OnnxSite) -> Tensor:
        return site.attention_mask


@dataclass(frozen=True)
class Cache(Effect):
    """The keys and values of earlier tokens, or None."""

    variable = "cache"

    def torch(self, site: Site) -> str:
        return "past_key_values"

    def keras(self, site: Site) -> str:
        return "past_key_values"

    def jax(self, site: Site) -> str:
        return "cache"  # a copy of the caller's
