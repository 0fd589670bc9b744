"""The batch's cache: keys and values of texts of unequal lengths, a row each, in one rectangle a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neural.generation.cache import KVCache

Views = dict[int, tuple[Tensor, Tensor]]  # layer -> keys and values, (1, n_kv_heads, T, head_dim) each
FEWEST_TOKENS = 64


class RowCache:
    """A cache for `model(ids, past_key_values=cache, position_ids=cache.positions(T))`.

    Row i holds `lengths[i]` tokens from place 0 on; what stands after them is no one's, and masked since its place is
    after the row's positions. Rows are dense: where one leaves, the last takes its place, so that a step reads views
    and copies nothing. `most_tokens` bounds rows times places of the rectangle.

    A step: `update` by each layer writes T tokens a row after its length; `commit` then says how many of them stay.
    """

    def __init__(self, most_rows: int, context: int, most_tokens: int, device: torch.device) -> None:
        self._most_rows, self._context, self._most_tokens, self._device = most_rows, context, most_tokens, device
        self._rows, self._places = 0, 0  # of the rectangle
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # (rows, n_kv_heads, places, head_dim)
        self._at: tuple[Tensor, Tensor] | None = None  # rows (B, 1) and places (B, T) of this step's tokens
        self.lengths: list[int] = []

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths, default=0)

    def positions(self, width: int) -> Tensor | None:
        """Where the next `width` tokens of each row stand, (B, T); None where all rows are of one length."""
        if len(set(self.lengths)) < 2:
            self._at = None
            return None
        starts = torch.tensor(self.lengths, device=self._device)[:, None]
        places = starts + torch.arange(width, device=self._device)
        self._at = torch.arange(len(self.lengths), device=self._device)[:, None], places
        return places

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, n_kv_heads, T, head_dim) after each row's past; give views of all that the rows hold,
        (B, n_kv_heads, longest + T, head_dim).
        """
        rows, end = len(self.lengths), self.length + k.shape[2]
        held = self.layers[layer]
        for buffer, new in zip(held, (k, v), strict=True):
            if self._at is None:
                buffer[:rows, :, self.length : end] = new
            else:
                buffer[self._at[0], :, self._at[1]] = new.transpose(1, 2)
        return held[0][:rows, :, :end], held[1][:rows, :, :end]

    def commit(self, counts: Sequence[int]) -> None:
        """Keep the first `counts[i]` of the tokens that the step wrote into row i."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and places of the rectangle."""
        return self._rows, self._places

    def reserve(self, rows: int, places: int) -> bool:
        """Make room for so many rows of so many tokens; rows * places is at most `most_tokens`. Whether the rectangle
        is another now.
        """
        if rows <= self._rows and places <= self._places:
            return False
        wide = max(self._rows, min(power(2, rows), self._most_rows))
        long = max(self._places, min(power(2, max(places, FEWEST_TOKENS)), self._context))
        if wide * long > self._most_tokens:
            wide, long = rows, places
        self._rows, self._places = wide, long
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = self._moved(keys), self._moved(values)
        return True

    def join(self, cache: KVCache) -> None:
        """Add a row at the end that holds what `cache`, of one row, does."""
        row, places, parts = len(self.lengths), [], []
        for layer, pair in cache.views().items():
            if layer not in self.layers:
                self.layers[layer] = tuple(self._rectangle(part) for part in pair)
            places += [buffer[row, :, : cache.length] for buffer in self.layers[layer]]
            parts += [part[0] for part in pair]
        torch._foreach_copy_(places, parts)  # of a GPU, a kernel for many
        self.lengths.append(cache.length)

    def leave(self, row: int) -> None:
        """Drop a row; the last one takes its number."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if row != last:
            for pair in self.layers.values():
                for buffer in pair:
                    buffer[row, :, :length] = buffer[last, :, :length]
            self.lengths[row] = length

    def select(self, rows: Sequence[int]) -> None:
        """Make the rows out of themselves: row i becomes what row `rows[i]` was."""
        length, chosen = self.length, torch.tensor(rows, device=self._device)
        for pair in self.layers.values():
            for buffer in pair:
                buffer[: len(rows), :, :length] = buffer[:, :, :length].index_select(0, chosen)
        self.lengths = [self.lengths[row] for row in rows]

    def views(self, row: int) -> Views:
        """What a row holds."""
        part = slice(row, row + 1), slice(None), slice(0, self.lengths[row])
        return {layer: (keys[part], values[part]) for layer, (keys, values) in self.layers.items()}

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for pair in self.layers.values() for buffer in pair)

    def _rectangle(self, like: Tensor) -> Tensor:
        # zeros: what a mask hides is multiplied by 0, and 0 times NaN of old memory is NaN
        return like.new_zeros(self._rows, like.shape[1], self._places, like.shape[3])

    def _moved(self, buffer: Tensor) -> Tensor:
        new = self._rectangle(buffer)
        rows, places = len(self.lengths), self.length
        new[:rows, :, :places] = buffer[:rows, :, :places]
        return new


def power(base: int, least: int) -> int:
    """The smallest power of a base that is `least` or more."""
    found = 1
    while found < least:
        found *= base
    return found
