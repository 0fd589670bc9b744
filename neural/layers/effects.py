"""What layers need beside their inputs. The network makes each once a forward pass and hands it down."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.layer import Effect, Site


@dataclass(frozen=True)
class Positions(Effect):
    """Where the tokens stand in the sequence, int64 (T,)."""

    variable = "positions"

    def torch(self, site: Site) -> str:
        ids = site.inputs[0]
        return f"torch.arange({'T' if site.past == '0' else 'past, past + T'}, device={ids}.device)"


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
