"""Gpt2: 124,439,808 parameters. Written by `neural compile`."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array


@jax.tree_util.register_dataclass
@dataclass
class KVCache:
    """Keys and values of the tokens seen so far, a pair for each attention layer.

    Its shapes do not change as it fills, so a jitted step is compiled once.
    """

    keys: list[Array]  # (B, max_length, heads, head_dim) each
    values: list[Array]
    length: Array  # how many tokens it holds, int32 ()

    @property
    def max_length(self) -> int:
        return self.keys[0].shape[1]

    def extended(self, T: int) -> "KVCache":
        """A copy with T tokens more, whose keys and values `update` writes.

        ValueError where there is no room for them. A jitted caller has to count for
        itself: the length is not known while it is traced.
        """
        length = self.length + T
        if not isinstance(length, jax.core.Tracer) and length > self.max_length:
            raise ValueError(f"{length} tokens, and the cache holds {self.max_length}")
        return KVCache(list(self.keys), list(self.values), length)

    def update(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Keep new keys and values, (B, T, heads, head_dim); return all of the layer's."""
        start = (0, self.length - k.shape[1], 0, 0)
        self.keys[layer] = jax.lax.dynamic_update_slice(self.keys[layer], k, start)
        self.values[layer] = jax.lax.dynamic_update_slice(self.values[layer], v, start)
        return self.keys[layer], self.values[layer]


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


def causal_mask(T: int, past: Array | int, S: int, padding: Array | None) -> Array:
    """True where one of T queries may look at one of S keys, (T, S) or (B, 1, T, S)."""
    mask = jnp.arange(S) <= past + jnp.arange(T)[:, None]
    return mask if padding is None else mask & padding[:, None, None, :].astype(bool)


class CausalSelfAttention(nnx.Module):
    def __init__(
        self,
        num_heads: int,
        d_model: int,
        dropout: float,
        layer: int,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.num_heads = num_heads
        self.layer = layer
        self.attention_dropout = nnx.Dropout(dropout, rngs=rngs)
        self.qkv = nnx.Linear(d_model, 3 * d_model, kernel_init=normal_init, rngs=rngs)
        self.c_proj = nnx.Linear(d_model, d_model, kernel_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array, mask: Array, cache: KVCache | None) -> Array:
        """(B, T, d_model) → (B, T, d_model)."""
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        # heads behind the length: (B, T, heads, head_dim)
        q = q.reshape(*q.shape[:2], self.num_heads, -1)
        k = k.reshape(*k.shape[:2], self.num_heads, -1)
        v = v.reshape(*v.shape[:2], self.num_heads, -1)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        x = dropout_attention(q, k, v, mask, self.attention_dropout)
        x = x.reshape(*x.shape[:2], -1)  # (B, T, d_model)
        x = self.c_proj(x)
        return self.dropout(x)


class MLP(nnx.Module):
    def __init__(
        self, d_model: int, d_ff: int, dropout: float, *, rngs: nnx.Rngs
    ) -> None:
        self.c_fc = nnx.Linear(d_model, d_ff, kernel_init=normal_init, rngs=rngs)
        self.c_proj = nnx.Linear(d_ff, d_model, kernel_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, T, d_model) → (B, T, d_model)."""
        x = nnx.gelu(self.c_fc(x), approximate=True)
        x = self.c_proj(x)
        return self.dropout(x)


class GptBlock(nnx.Module):
    def __init__(
        self,
        num_heads: int,
        d_model: int,
        layer: int,
        d_ff: int | None = None,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        d_ff = 4 * d_model if d_ff is None else d_ff
        self.ln_1 = nnx.LayerNorm(
            d_model, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.attn = CausalSelfAttention(
            num_heads=num_heads,
            d_model=d_model,
            dropout=dropout,
            layer=layer,
            rngs=rngs,
        )
        self.ln_2 = nnx.LayerNorm(
            d_model, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.mlp = MLP(d_model=d_model, d_ff=d_ff, dropout=dropout, rngs=rngs)

    def __call__(self, x: Array, mask: Array, cache: KVCache | None) -> Array:
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.attn(self.ln_1(x), mask, cache)
        return x + self.mlp(self.ln_2(x))


class Gpt2(nnx.Module):
    def __init__(
        self,
        vocab_size: int = 50257,
        context: int = 1024,
        d_model: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        dropout: float = 0.1,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.wte = nnx.Embed(vocab_size, d_model, embedding_init=normal_init, rngs=rngs)
        self.wpe = nnx.Embed(context, d_model, embedding_init=normal_init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.blocks = nnx.List(
            GptBlock(
                num_heads=n_head, d_model=d_model, dropout=dropout, layer=i, rngs=rngs
            )
            for i in range(n_layer)
        )
        self.ln_f = nnx.LayerNorm(
            d_model, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.context = context
        self.kv_shapes = ((n_head, d_model // n_head),) * n_layer  # heads, head_dim
        for path, module in nnx.iter_modules(self):
            name = ".".join(part for part in path if isinstance(part, str))
            if name.endswith("c_proj"):  # into the residual stream
                module.kernel[...] /= math.sqrt(2 * n_layer)

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        past_key_values: KVCache | None = None,
    ) -> Array | tuple[Array, KVCache]:
        """Logits (B, T, vocab_size) of input_ids (B, T).

        attention_mask: (B, past + T), 1 for tokens and 0 for padding on the right.
            With a cache it may be max_length wide, and so of one shape in all steps.
        past_key_values: from `init_cache` or the call before. It stays as it is; the
            cache that follows is returned behind the logits.
        """
        T = input_ids.shape[1]
        if self.context < T:
            raise ValueError(f"{T} tokens, and the context has {self.context}")
        cache, past, S = None, 0, T
        if past_key_values is not None:
            cache = past_key_values.extended(T)
            past, S = past_key_values.length, cache.max_length
            if attention_mask is not None:  # nothing yet behind the last token
                attention_mask = jnp.pad(
                    attention_mask, ((0, 0), (0, S - attention_mask.shape[1]))
                )
        positions = past + jnp.arange(T)
        mask = causal_mask(T, past, S, attention_mask)
        x = self.wte(input_ids) + self.wpe(positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask, cache)
        x = self.ln_f(x)
        logits = self.wte.attend(x)
        return logits if cache is None else (logits, cache)

    def init_cache(
        self, batch_size: int, max_length: int, dtype: jnp.dtype = jnp.float32
    ) -> KVCache:
        """An empty cache for a number of sequences of up to max_length tokens."""
        if self.context < max_length:
            raise ValueError(f"{max_length} tokens, and the context has {self.context}")
        shapes = [(batch_size, max_length, *shape) for shape in self.kv_shapes]
        keys, values = ([jnp.zeros(s, dtype) for s in shapes] for _ in range(2))
        return KVCache(keys, values, jnp.zeros((), jnp.int32))

    def probabilities(
        self, input_ids: Array, attention_mask: Array | None = None
    ) -> Array:
        """The softmax of the logits, (B, T, vocab_size)."""
        return nnx.softmax(self(input_ids, attention_mask))


def loss_fn(model: Gpt2, input_ids: Array, targets: Array) -> Array:
    """The mean cross-entropy in nats. targets: the right class of each row of logits."""
    logits = model(input_ids)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def is_matrix(params: nnx.State) -> nnx.State:
    """What decays: tensors of two or more axes; biases and norms' gains do not."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def make_optimizer(
    model: Gpt2, steps: int = 600000, accumulation: int = 40
) -> nnx.Optimizer:
    """AdamW as the network's file asks for it.

    steps: of the whole training. accumulation: batches in one step.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0006 / 2001,
        peak_value=0.0006,
        warmup_steps=2000,
        decay_steps=steps - 1,
        end_value=6e-05,
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule, b1=0.9, b2=0.95, eps=1e-08, weight_decay=0.1, mask=is_matrix
        ),
    )
    tx = optax.MultiSteps(tx, every_k_schedule=accumulation)
    return nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(
    model: Gpt2, optimizer: nnx.Optimizer, input_ids: Array, targets: Array
) -> Array:
    """One step on a batch. Returns the loss before it."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, input_ids, targets)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    model = Gpt2(rngs=nnx.Rngs(0))
    model.eval()
    size = sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    key = jax.random.key(1)
    input_ids = jax.random.randint(key, (1, 64), 0, 50257)
    output = model(input_ids)
    print(f"Gpt2: {size:,} parameters")
    print(f"input_ids {input_ids.shape} → {output.shape}")
