"""The cache: what it stores, when its length moves, and that it does not copy."""

from __future__ import annotations

import pytest
import torch

from neural.generation.cache import FIRST_CAPACITY, KVCache
from neural.generation.rows import RowCache


def keys_and_values(tokens: int, seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, tokens, 5, generator=rng), torch.randn(batch, 3, tokens, 5, generator=rng)


@pytest.mark.parametrize("steps", [[1], [7, 1, 1, 1], [64, 1], [1] * 130, [100, 50, 49, 1], [200]])
@pytest.mark.parametrize("layers", [1, 3])
def test_it_gives_everything_stored_so_far(steps: list[int], layers: int) -> None:
    cache = KVCache(200)
    stored = [([], []) for _ in range(layers)]
    for step, tokens in enumerate(steps):
        assert cache.length == sum(steps[:step])
        for layer in range(layers):
            k, v = keys_and_values(tokens, 10 * step + layer)
            stored[layer][0].append(k)
            stored[layer][1].append(v)
            keys, values = cache.update(layer, k, v)
            assert torch.equal(keys, torch.cat(stored[layer][0], dim=2))
            assert torch.equal(values, torch.cat(stored[layer][1], dim=2))
    assert cache.length == sum(steps)


def test_the_length_moves_on_after_the_last_layer() -> None:
    cache = KVCache(10)
    for layer in range(3):
        cache.update(layer, *keys_and_values(4, layer))
    lengths = []
    for layer in range(3):
        cache.update(layer, *keys_and_values(1, layer))
        lengths.append(cache.length)
    assert lengths == [4, 4, 5]


def test_it_gives_views_and_writes_in_place() -> None:
    cache = KVCache(100)
    first, _ = cache.update(0, *keys_and_values(5, 0))
    second, _ = cache.update(0, *keys_and_values(1, 1))
    assert first.data_ptr() == second.data_ptr()
    assert first.untyped_storage().nbytes() == 4 * 2 * 3 * FIRST_CAPACITY * 5


@pytest.mark.parametrize(
    ("max_length", "tokens", "capacity"),
    [(1000, 1, 64), (1000, 64, 64), (1000, 65, 128), (1000, 513, 1000), (40, 3, 40), (64, 64, 64)],
)
def test_it_grows_by_doubling_up_to_the_context(max_length: int, tokens: int, capacity: int) -> None:
    cache = KVCache(max_length)
    for step in range(tokens):
        cache.update(0, *keys_and_values(1, step))
    assert cache.capacity == capacity


def test_it_refuses_more_than_the_context() -> None:
    cache = KVCache(8)
    cache.update(0, *keys_and_values(8, 0))
    with pytest.raises(ValueError, match="9 tokens do not fit a cache of 8"):
        cache.update(0, *keys_and_values(1, 1))


def test_reset_keeps_the_buffers() -> None:
    cache = KVCache(100)
    before, _ = cache.update(0, *keys_and_values(70, 0))
    cache.reset()
    assert cache.length == 0
    k, v = keys_and_values(3, 1)
    after, values = cache.update(0, k, v)
    assert torch.equal(after, k)
    assert torch.equal(values, v)
    assert after.data_ptr() == before.data_ptr()


@pytest.mark.parametrize("rows", [[0, 0, 0, 0], [1], [1, 0]])
def test_rows_repeat_and_drop(rows: list[int]) -> None:
    cache = RowCache(most_rows=4, context=20, most_tokens=80, device=torch.device("cpu"))
    cache.reserve(4, 20)
    held = [keys_and_values(4, seed, batch=1) for seed in (1, 2)]
    for pair in held:
        prompt = KVCache(20)
        prompt.update(0, *pair)
        cache.join(prompt)
    cache.select(rows)
    assert cache.positions(2) is None
    for kept, part, new in zip(
        cache.update(0, *keys_and_values(2, 3, len(rows))), (0, 1), keys_and_values(2, 3, len(rows)), strict=True
    ):
        assert torch.equal(kept, torch.cat([torch.cat([held[row][part] for row in rows]), new], dim=2))


def test_it_takes_the_type_of_what_it_stores() -> None:
    cache = KVCache(20)
    k, v = (tensor.bfloat16() for tensor in keys_and_values(4, 0))
    assert cache.update(0, k, v)[0].dtype == torch.bfloat16
