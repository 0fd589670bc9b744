"""Hugging Face's GPT-2 behind the protocol of the generated source, so that its own `generate` is a reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from neural.generation.cache import KVCache


class Bridge(DynamicCache):
    """Our cache, asked in the words of transformers."""

    def __init__(self, cache: KVCache) -> None:
        super().__init__()
        self.cache = cache
        self.past = cache.length

    def update(self, k: Tensor, v: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self.cache.update(layer, k, v)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.past + query_length, 0


class HuggingFaceGpt2(nn.Module):
    """A GPT-2 of random weights, wide enough that its greedy text does not settle on one token."""

    def __init__(self, vocab_size: int, context: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=vocab_size,
            n_positions=context,
            n_embd=32,
            n_layer=3,
            n_head=4,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.hf = GPT2LMHeadModel(config)
        self.eval()

    def forward(self, ids: Tensor, past_key_values: KVCache | None = None) -> Tensor | tuple[Tensor, KVCache]:
        if past_key_values is None:
            return self.hf(ids).logits
        return self.hf(ids, past_key_values=Bridge(past_key_values), use_cache=True).logits, past_key_values
