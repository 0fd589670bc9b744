"""GptDecoder: 124,439,808 parameters. Written by `neural compile`."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class KVCache:
    """Keys and values of the tokens seen so far, a pair for each attention layer.

    `past_key_values` takes any object like this one: with `length`, the number of tokens
    that it holds, and `update`.
    """

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        return self.layers[0][0].size(-2) if self.layers else 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values, (B, heads, T, head_dim); return all of the layer's."""
        if layer in self.layers:
            old_k, old_v = self.layers[layer]
            k, v = torch.cat((old_k, k), dim=-2), torch.cat((old_v, v), dim=-2)
        self.layers[layer] = k, v
        return k, v


def token_positions(
    T: int, past: int, position_ids: Tensor | None, device: torch.device
) -> Tensor:
    """Where the tokens stand: after the past, (T,), or where the caller says, (B, T)."""
    if position_ids is not None:
        return position_ids
    return torch.arange(past, past + T, device=device)


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


def init_weights(module: nn.Module) -> None:
    """GPT-2's: matrices and tables with a standard deviation of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class CausalAttention(nn.Module):
    def __init__(
        self, num_heads: int, d_model: int, dropout: float, layer: int
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.layer = layer
        self.attention_dropout = dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.projection = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        # heads beside the batch: (B, heads, T, head_dim)
        q = query.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = key.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        v = value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=mask is None and q.size(-2) > 1,
        )
        x = x.transpose(1, 2).flatten(-2)  # (B, T, d_model)
        x = self.projection(x)
        return self.dropout(x)


class GptBlock(nn.Module):
    def __init__(
        self, num_heads: int, d_model: int, d_ff: int, dropout: float, layer: int
    ) -> None:
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(d_model)
        self.causal_attention = CausalAttention(
            num_heads=num_heads, d_model=d_model, dropout=dropout, layer=layer
        )
        self.layer_norm_2 = nn.LayerNorm(d_model)
        self.dense_1 = nn.Linear(d_model, d_ff)
        self.dense_2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.causal_attention(self.layer_norm_1(x), mask, cache)
        h = self.layer_norm_2(x)
        h = F.gelu(self.dense_1(h))
        return x + self.dropout(self.dense_2(h))


class GptDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50257, 768)
        self.positional_embedding = nn.Embedding(1024, 768)
        self.dropout = nn.Dropout(0.1)
        self.gpt_blocks = nn.ModuleList(
            GptBlock(num_heads=12, d_model=768, d_ff=3072, dropout=0.1, layer=i)
            for i in range(12)
        )
        self.layer_norm = nn.LayerNorm(768)
        self.dense = nn.Linear(768, 50257, bias=False)
        self.dense.weight = self.tokens.weight
        self.context = 1024
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            # into the residual stream
            if name.endswith(("projection.weight", "dense_2.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(24))

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """What dense reads, (B, T, 768). The arguments are those of `forward`."""
        T = input_ids.size(1)
        past = 0 if past_key_values is None else past_key_values.length
        if self.context < past + T:
            raise ValueError(f"{past + T} tokens, and the context has {self.context}")
        positions = token_positions(T, past, position_ids, input_ids.device)
        mask = causal_mask(T, past, attention_mask, input_ids.device, position_ids)
        x = self.tokens(input_ids) + self.positional_embedding(positions)
        x = self.dropout(x)
        for block in self.gpt_blocks:
            x = block(x, mask, past_key_values)
        return self.layer_norm(x)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Tensor | tuple[Tensor, KVCache]:
        """Logits (B, T, 50257) of input_ids (B, T).

        attention_mask: (B, past + T), 1 for tokens and 0 for padding on the right.
        past_key_values: a KVCache, or any object with its `length` and `update`. It is
            written to, and returned behind the logits.
        position_ids: int64 (B, T), where the tokens stand; by default after the past.
        logits_to_keep: logits of so many of the last tokens only; 0 for all.
        """
        x = self.hidden_states(input_ids, attention_mask, past_key_values, position_ids)
        x = x[:, -logits_to_keep:]
        logits = self.dense(x)
        return logits if past_key_values is None else (logits, past_key_values)

    def probabilities(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The softmax of the logits, (B, T, 50257)."""
        return self(input_ids, attention_mask).softmax(dim=-1)


if __name__ == "__main__":
    model = GptDecoder().eval()
    size = sum(p.numel() for p in model.parameters())
    input_ids = torch.randint(50257, (1, 64))
    with torch.no_grad():
        output = model(input_ids)
    print(f"GptDecoder: {size:,} parameters")
    print(f"input_ids {tuple(input_ids.shape)} → {tuple(output.shape)}")
