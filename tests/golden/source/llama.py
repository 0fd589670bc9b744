"""Llama: 1,100,048,384 parameters. Written by `neural compile`."""

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


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((-second, first), dim=-1) * sin
    return turned.type_as(x)


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


def rotary(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021), (1, T, head_dim) each.

    Of positions (B, T): (B, 1, T, head_dim).
    """
    steps = torch.arange(0, head_dim, 2, device=positions.device)
    frequencies = 1.0 / base ** (steps / head_dim)
    angles = (positions[..., None] * frequencies).unsqueeze(-3)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def init_weights(module: nn.Module) -> None:
    """GPT-2's: matrices and tables with a standard deviation of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class MultiHeadAttention(nn.Module):
    def __init__(
        self, d_model: int, num_heads: int, num_kv_heads: int, layer: int
    ) -> None:
        super().__init__()
        self.qkv_widths = (
            d_model,
            num_kv_heads * (d_model // num_heads),
            num_kv_heads * (d_model // num_heads),
        )
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.layer = layer
        self.qkv = nn.Linear(d_model, sum(self.qkv_widths), bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        rope: tuple[Tensor, Tensor],
        cache: KVCache | None,
    ) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        q, k, v = self.qkv(x).split(self.qkv_widths, dim=-1)
        # heads beside the batch: (B, heads, T, head_dim)
        q = q.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = k.unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
        v = v.unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and q.size(-2) > 1,
            enable_gqa=True,
        )
        x = x.transpose(1, 2).flatten(-2)  # (B, T, d_model)
        return self.out(x)


class SwiGLU(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        gate = F.silu(self.gate(x))
        x = gate * self.up(x)
        return self.down(x)


class LlamaBlock(nn.Module):
    def __init__(
        self, num_heads: int, num_kv_heads: int, d_model: int, d_ff: int, layer: int
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.attention = MultiHeadAttention(
            d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, layer=layer
        )
        self.mlp_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.mlp = SwiGLU(d_model=d_model, d_ff=d_ff)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        rope: tuple[Tensor, Tensor],
        cache: KVCache | None,
    ) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.attention(self.attention_norm(x), mask, rope, cache)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    def __init__(
        self,
        vocab_size: int = 32000,
        context: int = 2048,
        d_model: int = 2048,
        n_layer: int = 22,
        n_head: int = 32,
        n_kv_head: int = 4,
        d_ff: int = 5632,
        rope_base: float = 10000.0,
    ) -> None:
        super().__init__()
        self.head_dim = d_model // n_head
        self.rope_base = rope_base
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(
            LlamaBlock(
                num_heads=n_head,
                num_kv_heads=n_kv_head,
                d_model=d_model,
                d_ff=d_ff,
                layer=i,
            )
            for i in range(n_layer)
        )
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        self.context = context
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):  # into the residual stream
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * n_layer))

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """What head reads, (B, T, d_model). The arguments are those of `forward`."""
        T = input_ids.size(1)
        past = 0 if past_key_values is None else past_key_values.length
        if self.context < past + T:
            raise ValueError(f"{past + T} tokens, and the context has {self.context}")
        positions = token_positions(T, past, position_ids, input_ids.device)
        mask = causal_mask(T, past, attention_mask, input_ids.device, position_ids)
        rope = rotary(positions, self.head_dim, self.rope_base)
        x = self.tokens(input_ids)
        for block in self.blocks:
            x = block(x, mask, rope, past_key_values)
        return self.norm(x)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Tensor | tuple[Tensor, KVCache]:
        """Logits (B, T, vocab_size) of input_ids (B, T).

        attention_mask: (B, past + T), 1 for tokens and 0 for padding on the right.
        past_key_values: a KVCache, or any object with its `length` and `update`. It is
            written to, and returned behind the logits.
        position_ids: int64 (B, T), where the tokens stand; by default after the past.
        logits_to_keep: logits of so many of the last tokens only; 0 for all.
        """
        x = self.hidden_states(input_ids, attention_mask, past_key_values, position_ids)
        x = x[:, -logits_to_keep:]
        logits = self.head(x)
        return logits if past_key_values is None else (logits, past_key_values)

    def probabilities(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The softmax of the logits, (B, T, vocab_size)."""
        return self(input_ids, attention_mask).softmax(dim=-1)


if __name__ == "__main__":
    model = Llama().eval()
    size = sum(p.numel() for p in model.parameters())
    input_ids = torch.randint(32000, (1, 64))
    with torch.no_grad():
        output = model(input_ids)
    print(f"Llama: {size:,} parameters")
    print(f"input_ids {tuple(input_ids.shape)} → {tuple(output.shape)}")
