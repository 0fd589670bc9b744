"""The keys and values of past tokens, so that each new token costs one token's work."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

FIRST_CAPACITY = 64


@dataclass(slots=True)
class LayerCache:
    """One layer's buffers (B, n_kv_heads, capacity, head_dim), filled up to `length`."""

    keys: Tensor
    values: Tensor
    length: int = 0


class KVCache:
    """A cache for `model(ids, past_key_values=cache)`: buffers that double up to `max_length` tokens, and their views.

    A forward pass reads `length` once, then calls `update` once a layer. `length` is what every layer holds, so it
    moves on when the last layer has been written; while the very first pass is still naming its layers it counts only
    those it has met. After a forward pass that failed half-way, `reset` before the next.
    """

    def __init__(self, max_length: int, first_capacity: int = FIRST_CAPACITY) -> None:
        self.max_length, self._first_capacity = max_length, first_capacity
        self._layers: dict[int, LayerCache] = {}

    @property
    def length(self) -> int:
        """Tokens held by every layer."""
        return min((layer.length for layer in self._layers.values()), default=0)

    @property
    def capacity(self) -> int:
        """Tokens that the buffers have room for."""
        return max((layer.keys.shape[2] for layer in self._layers.values()), default=0)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, n_kv_heads, T, head_dim) after the layer's past; give all of both
        (B, n_kv_heads, past + T, head_dim), as views into the buffers that the next update may move.

        Raises ValueError beyond `max_length`.
        """
        held = self._layers.setdefault(layer, LayerCache(k[:, :, :0], v[:, :, :0]))
        end = held.length + k.shape[2]
        if end > held.keys.shape[2]:
            held.keys = self._grown(held.keys, held.length, end)
            held.values = self._grown(held.values, held.length, end)
        held.keys[:, :, held.length : end] = k
        held.values[:, :, held.length : end] = v
        held.length = end
        return held.keys[:, :, :end], held.values[:, :, :end]

    def _grown(self, buffer: Tensor, length: int, needed: int) -> Tensor:
        if needed > self.max_length:
            raise ValueError(f"{needed} tokens do not fit a cache of {self.max_length}")
        capacity = max(self._first_capacity, 1 << (needed - 1).bit_length())
        batch, heads, _, width = buffer.shape
        grown = buffer.new_zeros(batch, heads, min(capacity, self.max_length), width)  # see RowCache
        grown[:, :, :length] = buffer[:, :, :length]
        return grown

    def views(self) -> dict[int, tuple[Tensor, Tensor]]:
        """What each layer holds: keys and values (B, n_kv_heads, length, head_dim)."""
        return {n: (h.keys[:, :, : h.length], h.values[:, :, : h.length]) for n, h in self._layers.items()}

    @property
    def buffers(self) -> dict[int, tuple[Tensor, Tensor]]:
        """All of each layer's, (B, n_kv_heads, capacity, head_dim)."""
        return {n: (held.keys, held.values) for n, held in self._layers.items()}

    def extend(self, count: int) -> None:
        """Hold so many tokens more, which somebody has put into the buffers."""
        for layer in self._layers.values():
            layer.length += count

    def truncate(self, length: int) -> None:
        """Hold the first `length` tokens only."""
        for layer in self._layers.values():
            layer.length = min(layer.length, length)

    def reset(self) -> None:
        """Hold no token; the buffers stay for the next text of the same batch."""
        self.truncate(0)
