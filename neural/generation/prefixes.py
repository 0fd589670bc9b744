"""Beginnings of prompts that were read before: their keys and values, so that they are not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neural.generation.cache import KVCache
from neural.generation.rows import Views

BLOCK = 16  # tokens: what is shared is a whole number of blocks

Key = tuple[int, tuple[int, ...]]  # the number of the block before, 0 for none, and the block's tokens


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and values of BLOCK tokens after certain others; layer -> two of (1, n_kv_heads, BLOCK, head_dim)."""

    number: int
    layers: dict[int, tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.layers.values() for part in pair)


class PrefixCache:
    """Blocks of tokens, each known by its own tokens and all before it, up to `most_bytes`.

    The least recently used block goes first, and of one text the last block before those that it follows.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._blocks: OrderedDict[Key, Block] = OrderedDict()  # the least recently used first
        self._last_number = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, tokens: Sequence[int]) -> list[Block]:
        """The blocks that hold the longest known beginning of `tokens`, its last token never included."""
        chain = self._chain(tokens[:-1])
        self._touch([key for key, _ in chain])
        return [block for _, block in chain]

    def store(self, tokens: Sequence[int], views: Views) -> None:
        """Keep a text's whole blocks, of views of all its tokens; those that are here are not copied again."""
        if not self._most_bytes or not views:
            return
        chain = self._chain(tokens)
        keys = [key for key, _ in chain]
        before = chain[-1][1].number if chain else 0
        for start in range(len(chain) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
            part = slice(start, start + BLOCK)
            layers = {n: (k[:, :, part].clone(), v[:, :, part].clone()) for n, (k, v) in views.items()}
            self._last_number += 1
            key, block = (before, tuple(tokens[part])), Block(self._last_number, layers)
            if self.nbytes + block.nbytes > self._most_bytes and not self._evict(block.nbytes, keep=set(keys)):
                break
            self._blocks[key] = block
            self.nbytes += block.nbytes
            keys.append(key)
            before = block.number
        self._touch(keys)

    def _chain(self, tokens: Sequence[int]) -> list[tuple[Key, Block]]:
        found, before = [], 0
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = (before, tuple(tokens[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            found.append((key, block))
            before = block.number
        return found

    def _touch(self, keys: list[Key]) -> None:
        """Mark as used, the last first: no block is ever older than one that follows it."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)

    def _evict(self, needed: int, keep: set[Key]) -> bool:
        """Make room; False where only the text that is being stored is left."""
        while self.nbytes + needed > self._most_bytes:
            key = next(iter(self._blocks), None)
            if key is None or key in keep:
                return False
            self.nbytes -= self._blocks.pop(key).nbytes
        return True


def fill(cache: KVCache, blocks: Sequence[Block]) -> None:
    """Put blocks into an empty cache of one row."""
    for layer in blocks[0].layers:
        keys, values = (torch.cat([block.layers[layer][i] for block in blocks], dim=2) for i in (0, 1))
        cache.update(layer, keys, values)


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
