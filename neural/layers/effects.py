"""What layers need beside their inputs. The network makes each once a forward pass and hands it down."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.layer import Effect, Site

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
