"""GptClassifier: 46,672,130 parameters. Written by `neural compile`."""

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

# GPT-2's matrices and tables begin with a standard deviation of 0.02, biases with 0.
normal_init = nnx.initializers.normal(0.02)


def dropout_attention(
    q: Array, k: Array, v: Array, mask: Array | None, dropout: nnx.Dropout
) -> Array:
    """Attention with dropout on its weights while training, (B, T, heads, head_dim)."""
    if dropout.deterministic:
        return jax.nn.dot_product_attention(q, k, v, mask=mask)
    return nnx.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        broadcast_dropout=False,
        dropout_rng=dropout.rngs(),
        dropout_rate=dropout.rate,
    )


def average(x: Array, mask: Array | None) -> Array:
    """The mean over the real positions of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x.mean(1)
    mask = mask[:, :, None].astype(x.dtype)
    return (x * mask).sum(1) / mask.sum(1)


def causal_mask(T: int, past: Array | int, S: int, padding: Array | None) -> Array:
    """True where one of T queries may look at one of S keys, (T, S) or (B, 1, T, S)."""
    mask = jnp.arange(S) <= past + jnp.arange(T)[:, None]
    return mask if padding is None else mask & padding[:, None, None, :].astype(bool)


class CausalAttention(nnx.Module):
    def __init__(
        self, num_heads: int, d_model: int, dropout: float, *, rngs: nnx.Rngs
    ) -> None:
        self.num_heads = num_heads
        self.attention_dropout = nnx.Dropout(dropout, rngs=rngs)
        self.qkv = nnx.Linear(d_model, 3 * d_model, kernel_init=normal_init, rngs=rngs)
        self.dense = nnx.Linear(d_model, d_model, kernel_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        """(B, T, d_model) → (B, T, d_model)."""
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        # heads behind the length: (B, T, heads, head_dim)
        q = query.reshape(*query.shape[:2], self.num_heads, -1)
        k = key.reshape(*key.shape[:2], self.num_heads, -1)
        v = value.reshape(*value.shape[:2], self.num_heads, -1)
        x = dropout_attention(q, k, v, mask, self.attention_dropout)
        x = x.reshape(*x.shape[:2], -1)  # (B, T, d_model)
        x = self.dense(x)
        return self.dropout(x)


class GptBlock(nnx.Module):
    def __init__(
        self, num_heads: int, d_model: int, d_ff: int, dropout: float, *, rngs: nnx.Rngs
    ) -> None:
        self.layer_norm_1 = nnx.LayerNorm(
            d_model, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.causal_attention = CausalAttention(
            num_heads=num_heads, d_model=d_model, dropout=dropout, rngs=rngs
        )
        self.layer_norm_2 = nnx.LayerNorm(
            d_model, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.dense_1 = nnx.Linear(d_model, d_ff, kernel_init=normal_init, rngs=rngs)
        self.dense_2 = nnx.Linear(d_ff, d_model, kernel_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.causal_attention(self.layer_norm_1(x), mask)
        h = self.layer_norm_2(x)
        h = nnx.gelu(self.dense_1(h), approximate=False)
        return x + self.dropout(self.dense_2(h))


class GptClassifier(nnx.Module):
    def __init__(self, num_classes: int = 2, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(50257, 768, embedding_init=normal_init, rngs=rngs)
        self.positional_embedding = nnx.Embed(
            512, 768, embedding_init=normal_init, rngs=rngs
        )
        self.gpt_block = GptBlock(
            num_heads=12, d_model=768, d_ff=3072, dropout=0.1, rngs=rngs
        )
        self.layer_norm = nnx.LayerNorm(
            768, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.dense = nnx.Linear(768, 768, kernel_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.output = nnx.Linear(768, num_classes, kernel_init=normal_init, rngs=rngs)
        self.context = 512
        for path, module in nnx.iter_modules(self):
            name = ".".join(part for part in path if isinstance(part, str))
            # into the residual stream
            if name.endswith(("causal_attention.dense", "dense_2")):
                module.kernel[...] /= math.sqrt(2)

    def __call__(self, input_ids: Array, attention_mask: Array | None = None) -> Array:
        """Logits (B, num_classes) of input_ids (B, T).

        attention_mask: (B, T), 1 for tokens and 0 for padding on the right.
        """
        T = input_ids.shape[1]
        if self.context < T:
            raise ValueError(f"{T} tokens, and the context has {self.context}")
        positions = jnp.arange(T)
        mask = causal_mask(T, 0, T, attention_mask)
        x = self.embedding(input_ids) + self.positional_embedding(positions)
        x = self.gpt_block(x, mask)
        x = self.layer_norm(x)
        x = average(x, attention_mask)
        x = nnx.relu(self.dense(x))
        x = self.dropout(x)
        return self.output(x)

    def probabilities(
        self, input_ids: Array, attention_mask: Array | None = None
    ) -> Array:
        """The softmax of the logits, (B, num_classes)."""
        return nnx.softmax(self(input_ids, attention_mask))


def loss_fn(
    model: GptClassifier,
    input_ids: Array,
    targets: Array,
    attention_mask: Array | None = None,
) -> Array:
    """The mean cross-entropy in nats. targets: the right class of each row of logits."""
    logits = model(input_ids, attention_mask)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def make_optimizer(model: GptClassifier) -> nnx.Optimizer:
    """Adam as the network's file asks for it."""
    tx = optax.adam(5e-05, b1=0.9, b2=0.999, eps=1e-07)
    return nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(
    model: GptClassifier,
    optimizer: nnx.Optimizer,
    input_ids: Array,
    targets: Array,
    attention_mask: Array | None = None,
) -> Array:
    """One step on a batch. Returns the loss before it."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, input_ids, targets, attention_mask)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    model = GptClassifier(rngs=nnx.Rngs(0))
    model.eval()
    size = sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    key = jax.random.key(1)
    input_ids = jax.random.randint(key, (1, 64), 0, 50257)
    output = model(input_ids)
    print(f"GptClassifier: {size:,} parameters")
    print(f"input_ids {input_ids.shape} → {output.shape}")
