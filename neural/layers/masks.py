"""Which keys a query may look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from neural.layers.effects import new_slots
from neural.layers.layer import Effect, Site
from neural.layers.onnx_site import OnnxSite, Tensor
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

KERAS_HIDE_PADDING = '''
def hide_padding(visible, padding, cache):
    """The mask without the keys that are padding, (1, 1, T, S) → (B, 1, T, S)."""
    if padding is None:
        return visible
    if cache is not None:
        padding = ops.pad(padding, ((0, 0), (0, cache.size - padding.shape[1])))
    return ops.logical_and(visible, ops.cast(padding, "bool")[:, None, None, :])
'''

KERAS_CAUSAL_MASK = '''
def causal_mask(T, cache, padding):
    """True where a query may look at a key, (1, 1, T, S) or (B, 1, T, S).

    None where attention needs no mask: `is_causal` says which keys it sees.
    """
    if padding is None and cache is None:
        return None
    past, S = (0, T) if cache is None else (cache.length, cache.size)
    visible = ops.arange(S) <= past + ops.arange(T)[:, None]
    return hide_padding(visible[None, None], padding, cache)
'''

KERAS_SLIDING_MASK = '''
def sliding_mask(T, cache, window, padding):
    """True where a query may look at a key: itself and the `window - 1` before it."""
    past, S = (0, T) if cache is None else (cache.length, cache.size)
    keys, queries = ops.arange(S), past + ops.arange(T)[:, None]
    visible = ops.logical_and(keys <= queries, keys > queries - window)
    return hide_padding(visible[None, None], padding, cache)
'''

JAX_CAUSAL_MASK = '''
def causal_mask(T: int, past: Array | int, S: int, padding: Array | None) -> Array:
    """True where one of T queries may look at one of S keys, (T, S) or (B, 1, T, S)."""
    mask = jnp.arange(S) <= past + jnp.arange(T)[:, None]
    return mask if padding is None else mask & padding[:, None, None, :].astype(bool)
'''

JAX_SLIDING_MASK = '''
def sliding_mask(
    T: int, past: Array | int, S: int, window: int, padding: Array | None
) -> Array:
    """True where a query may look at a key: itself and the `window - 1` before it."""
    ahead = jnp.arange(S) - (past + jnp.arange(T)[:, None])
    mask = (ahead <= 0) & (ahead > -window)
    return mask if padding is None else mask & padding[:, None, None, :].astype(bool)
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

    def keras(self, site: Site) -> str:
        cache = "None" if site.past == "0" else "past_key_values"
        site.helper(KERAS_HIDE_PADDING)
        if self.window is None:
            site.helper(KERAS_CAUSAL_MASK)
            return f"causal_mask(T, {cache}, attention_mask)"
        site.helper(KERAS_SLIDING_MASK)
        return f"sliding_mask(T, {cache}, {site.attribute('window', self.written)}, attention_mask)"

    def jax(self, site: Site) -> str:
        keys = "T, 0, T" if site.past == "0" else "T, past, S"
        if self.window is None:
            site.helper(JAX_CAUSAL_MASK)
            return f"causal_mask({keys}, attention_mask)"
        site.helper(JAX_SLIDING_MASK)
        return f"sliding_mask({keys}, {site.attribute('window', self.written)}, attention_mask)"

    def onnx(self, site: OnnxSite) -> Tensor:
        """Added to the scores, (B, 1, T, past + T)."""
        queries = site.op("Unsqueeze", new_slots(site), site.constant([1], "int64"))
        total = site.length(site.attention_mask)
        keys = site.op("Range", site.constant(0, "int64"), total, site.constant(1, "int64"))
        seen = site.op("LessOrEqual", keys, queries)
        if self.window is not None:
            first = site.op("Sub", queries, site.constant(self.window, "int64"))
            seen = site.op("And", seen, site.op("Greater", keys, first))
        return _added(site, site.op("And", seen, _real_keys(site)))


KEY_MASK = '''
def key_mask(padding: Tensor | None) -> Tensor | None:
    """True for real keys, (B, 1, 1, T), or None where all are."""
    return None if padding is None else padding[:, None, None, :].bool()
'''

KERAS_KEY_MASK = '''
def key_mask(padding):
    """True for real keys, (B, 1, 1, T), or None where all are."""
    return None if padding is None else ops.cast(padding, "bool")[:, None, None, :]
'''

JAX_KEY_MASK = '''
def key_mask(padding: Array | None) -> Array | None:
    """True for real keys, (B, 1, 1, T), or None where all are."""
    return None if padding is None else padding[:, None, None, :].astype(bool)
'''


@dataclass(frozen=True)
class PaddingMask(Effect):
    """True for real keys, bool (B, 1, 1, S), or None."""

    variable = "padding"

    def torch(self, site: Site) -> str:
        site.helper(KEY_MASK)
        return "key_mask(attention_mask)"

    def keras(self, site: Site) -> str:
        site.helper(KERAS_KEY_MASK)
        return "key_mask(attention_mask)"

    def jax(self, site: Site) -> str:
        site.helper(JAX_KEY_MASK)
        return "key_mask(attention_mask)"

    def onnx(self, site: OnnxSite) -> Tensor:
        """Added to the scores, (B, 1, 1, S)."""
        return _added(site, _real_keys(site))


def _real_keys(site: OnnxSite) -> Tensor:
    return site.op("Unsqueeze", site.cast(site.attention_mask, "bool"), site.constant([1, 2], "int64"))


def _added(site: OnnxSite, seen: Tensor) -> Tensor:
    """A mask of numbers: of padding that sees no key at all, a mask of bools makes NaN in some runtimes."""
    least = float(site.np.finfo("float32").min)
    return site.op("Where", seen, site.constant(0.0), site.constant(least))
