"""GptClassifier: 46,672,130 parameters. Written by `neural compile`."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def average(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the real positions of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x.mean(1)
    mask = mask[:, :, None].to(x.dtype)
    return (x * mask).sum(1) / mask.sum(1)


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
    def __init__(self, num_heads: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.dense = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        # heads beside the batch: (B, heads, T, head_dim)
        q = query.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = key.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        v = value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        x = x.transpose(1, 2).flatten(-2)  # (B, T, d_model)
        x = self.dense(x)
        return self.dropout(x)


class GptBlock(nn.Module):
    def __init__(self, num_heads: int, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(d_model)
        self.causal_attention = CausalAttention(
            num_heads=num_heads, d_model=d_model, dropout=dropout
        )
        self.layer_norm_2 = nn.LayerNorm(d_model)
        self.dense_1 = nn.Linear(d_model, d_ff)
        self.dense_2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.causal_attention(self.layer_norm_1(x), mask)
        h = self.layer_norm_2(x)
        h = F.gelu(self.dense_1(h))
        return x + self.dropout(self.dense_2(h))


class GptClassifier(nn.Module):
    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50257, 768)
        self.positional_embedding = nn.Embedding(512, 768)
        self.gpt_block = GptBlock(num_heads=12, d_model=768, d_ff=3072, dropout=0.1)
        self.layer_norm = nn.LayerNorm(768)
        self.dense = nn.Linear(768, 768)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(768, num_classes)
        self.context = 512
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            # into the residual stream
            if name.endswith(("causal_attention.dense.weight", "dense_2.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, num_classes) of input_ids (B, T).

        attention_mask: (B, T), 1 for tokens and 0 for padding on the right.
        """
        T = input_ids.size(1)
        if self.context < T:
            raise ValueError(f"{T} tokens, and the context has {self.context}")
        positions = torch.arange(T, device=input_ids.device)
        mask = causal_mask(T, 0, attention_mask, input_ids.device)
        x = self.embedding(input_ids) + self.positional_embedding(positions)
        x = self.gpt_block(x, mask)
        x = self.layer_norm(x)
        x = average(x, attention_mask)
        x = F.relu(self.dense(x))
        x = self.dropout(x)
        return self.output(x)

    def probabilities(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """The softmax of the logits, (B, num_classes)."""
        return self(input_ids, attention_mask).softmax(dim=-1)


if __name__ == "__main__":
    model = GptClassifier().eval()
    size = sum(p.numel() for p in model.parameters())
    input_ids = torch.randint(50257, (1, 64))
    with torch.no_grad():
        output = model(input_ids)
    print(f"GptClassifier: {size:,} parameters")
    print(f"input_ids {tuple(input_ids.shape)} → {tuple(output.shape)}")
