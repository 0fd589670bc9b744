"""Which keys a query may look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from neural.layers.layer import Effect, Site
from neural.layers.values import Arg

CAUSAL_MASK = '''
def causal_mask(
    T: int,
    past: int,
    padding: Tensor | None,
    device: torch.device,
    position_ids: Tensor | None = None,
) -> Tensor | None:
    """True where a query may look at a key, (T, past + T) or (B, 1, T, past + T).

    None where attention needs no mask: every key is allowed, or `is_causal` says which.
    """
    if padding is None and position_ids is None and (past == 0 or T == 1):
        return None
    keys = torch.arange(past + T, device=device)
    queries = keys[past:] if position_ids is None else position_ids[:, None]
    mask = keys <= queries[..., None]
    return mask if padding is None else mask & padding[:, None, None, :].bool()
'''

SLIDING_MASK = '''
def sliding_mask(
    T: int,
    past: int,
    window: int,
    padding: Tensor | None,
    device: torch.device,
    position_ids: Tensor | None = None,
) -> Tensor:
    """True where a query may look at a key: itself and the `window - 1` before it."""
    keys = torch.arange(past + T, device=device)
    queries = keys[past:] if position_ids is None else position_ids[:, None]
    ahead = keys - queries[..., None]
    mask = (ahead <= 0) & (ahead > -window)
    return mask if padding is None else mask & padding[:, None, None, :].bool()
'''


@dataclass(frozen=True)
class CausalMask(Effect):
    """Which keys a query may look at: none after it and, with a window, only the last `window` of them."""

    window: int | None = None
    written: Arg | None = field(default=None, compare=False)

    variable = "mask"

    def torch(self, site: Site) -> str:
        rest = f"attention_mask, {site.inputs[0]}.device" + ("" if site.past == "0" else ", position_ids")
        if self.window is None:
            site.helper(CAUSAL_MASK)
            return f"causal_mask(T, {site.past}, {rest})"
        site.helper(SLIDING_MASK)
        window = site.attribute("window", self.written)
        return f"sliding_mask(T, {site.past}, {window}, {rest})"


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
