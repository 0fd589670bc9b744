"""Gpt2: 124,439,808 parameters. Written by `neural compile`."""

import math

import keras
from keras import layers, ops


class KVCache:
    """Keys and values of up to `size` tokens, a pair for each attention layer.

    The tensors keep one shape, (B, size, heads, head_dim), so that a compiled step is
    compiled once: give it `layers` and `length`, and take them back from it.
    """

    def __init__(self, size, layers=(), length=0):
        self.size = size
        self.layers = list(layers)
        self.length = length  # how many tokens it holds

    def update(self, layer, k, v):
        """Keep new keys and values, (B, T, heads, head_dim); return all of the layer's."""
        total = self.length + ops.shape(k)[1]
        if isinstance(total, int) and total > self.size:
            raise ValueError(f"{total} tokens, and the cache holds {self.size}")
        if layer == len(self.layers):
            shape = (ops.shape(k)[0], self.size, *k.shape[2:])
            self.layers.append((ops.zeros(shape, k.dtype), ops.zeros(shape, v.dtype)))
        start = (0, self.length, 0, 0)
        old_k, old_v = self.layers[layer]
        k, v = ops.slice_update(old_k, start, k), ops.slice_update(old_v, start, v)
        self.layers[layer] = k, v
        return k, v


# On PyTorch it is torch.compile, which takes minutes and wants a C++ compiler.
JIT_COMPILE = keras.backend.backend() != "torch"


@keras.saving.register_keras_serializable(package="Gpt2")
class Perplexity(keras.metrics.SparseCategoricalCrossentropy):
    """The exponential of the mean cross-entropy."""

    def result(self):
        return ops.exp(super().result())


@keras.saving.register_keras_serializable(package="Gpt2")
class AdamW(keras.optimizers.AdamW):
    """AdamW as PyTorch has it: epsilon is added to the corrected second moment,
    and biases and the gains of norms do not decay.
    """

    def build(self, variables):
        vectors = [v for v in variables if len(v.shape) < 2]
        self.exclude_from_weight_decay(var_list=vectors)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        # of a table, TensorFlow has a row for each time that one was read: summed
        grads = [ops.add(g, 0) if hasattr(g, "dense_shape") else g for g in grads]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = ops.cast(self.iterations + 1, "float32")
        rate = learning_rate / (1 - ops.power(self.beta_1, step))
        scale = 1 / ops.sqrt(1 - ops.power(self.beta_2, step))
        root = ops.sqrt(square) * ops.cast(scale, variable.dtype) + self.epsilon
        self.assign_sub(variable, ops.cast(rate, variable.dtype) * mean / root)


def split_heads(x, heads):
    """(B, T, heads * head_dim) → (B, T, heads, head_dim)."""
    B, T, width = ops.shape(x)
    return ops.reshape(x, (B, T, heads, width // heads))


def merge_heads(x):
    """(B, T, heads, head_dim) → (B, T, heads * head_dim)."""
    B, T, heads, head_dim = ops.shape(x)
    return ops.reshape(x, (B, T, heads * head_dim))


def attend(q, k, v, mask, dropout, is_causal=False, scale=None):
    """`ops.dot_product_attention` with dropout on its weights."""
    shared = q.shape[2] // k.shape[2]  # by so many queries
    k, v = ops.repeat(k, shared, axis=2), ops.repeat(v, shared, axis=2)
    scores = ops.cast(ops.einsum("btnh,bsnh->bnts", q, k), "float32")
    scores = scores * (q.shape[3] ** -0.5 if scale is None else scale)
    if is_causal:
        positions = ops.arange(ops.shape(q)[1])
        mask = positions <= positions[:, None]
    if mask is not None:
        scores = ops.where(mask, scores, -1e30)
    weights = dropout(ops.cast(ops.softmax(scores), v.dtype), training=True)
    return ops.einsum("bnts,bsnh->btnh", weights, v)


def hide_padding(visible, padding, cache):
    """The mask without the keys that are padding, (1, 1, T, S) → (B, 1, T, S)."""
    if padding is None:
        return visible
    if cache is not None:
        padding = ops.pad(padding, ((0, 0), (0, cache.size - padding.shape[1])))
    return ops.logical_and(visible, ops.cast(padding, "bool")[:, None, None, :])


def causal_mask(T, cache, padding):
    """True where a query may look at a key, (1, 1, T, S) or (B, 1, T, S).

    None where attention needs no mask: `is_causal` says which keys it sees.
    """
    if padding is None and cache is None:
        return None
    past, S = (0, T) if cache is None else (cache.length, cache.size)
    visible = ops.arange(S) <= past + ops.arange(T)[:, None]
    return hide_padding(visible[None, None], padding, cache)


@keras.saving.register_keras_serializable(package="Gpt2")
class CausalSelfAttention(layers.Layer):
    def __init__(self, num_heads, d_model, dropout, layer, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.d_model = d_model
        self.dropout_rate = dropout
        self.layer = layer
        self.qkv = layers.Dense(3 * d_model, name="qkv")
        self.attention_dropout = layers.Dropout(dropout, name="attention_dropout")
        self.c_proj = layers.Dense(d_model, name="c_proj")
        self.dropout = layers.Dropout(dropout, name="dropout")

    def build(self, input_shape):
        self.qkv.build(input_shape)
        self.c_proj.build(input_shape)

    def call(self, x, visible=None, cache=None, training=False):
        """(B, T, d_model) → (B, T, d_model)."""
        q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        q = split_heads(q, self.num_heads)
        k = split_heads(k, self.num_heads)
        v = split_heads(v, self.num_heads)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        if training:
            x = attend(
                q,
                k,
                v,
                mask=visible,
                is_causal=visible is None,
                dropout=self.attention_dropout,
            )
        else:
            x = ops.dot_product_attention(
                q, k, v, mask=visible, is_causal=visible is None
            )
        x = merge_heads(x)
        x = self.c_proj(x)
        return self.dropout(x, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "d_model": self.d_model,
            "dropout": self.dropout_rate,
            "layer": self.layer,
        }


@keras.saving.register_keras_serializable(package="Gpt2")
class MLP(layers.Layer):
    def __init__(self, d_model, d_ff, dropout, **kwargs):
        super().__init__(**kwargs)
        self.d_model = d_model
        self.d_ff = d_ff
        self.dropout_rate = dropout
        self.c_fc = layers.Dense(d_ff, name="c_fc")
        self.c_proj = layers.Dense(d_model, name="c_proj")
        self.dropout = layers.Dropout(dropout, name="dropout")

    def build(self, input_shape):
        self.c_fc.build(input_shape)
        self.c_proj.build((*input_shape[:-1], self.d_ff))

    def call(self, x, training=False):
        """(B, T, d_model) → (B, T, d_model)."""
        x = ops.gelu(self.c_fc(x), approximate=True)
        x = self.c_proj(x)
        return self.dropout(x, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "dropout": self.dropout_rate,
        }


@keras.saving.register_keras_serializable(package="Gpt2")
class GptBlock(layers.Layer):
    def __init__(self, num_heads, d_model, layer, d_ff=None, dropout=0.0, **kwargs):
        d_ff = 4 * d_model if d_ff is None else d_ff
        super().__init__(**kwargs)
        self.layer = layer
        self.num_heads = num_heads
        self.d_model = d_model
        self.d_ff = d_ff
        self.dropout = dropout
        self.ln_1 = layers.LayerNormalization(epsilon=1e-5, name="ln_1")
        self.attn = CausalSelfAttention(
            num_heads=num_heads,
            d_model=d_model,
            dropout=dropout,
            layer=layer,
            name="attn",
        )
        self.ln_2 = layers.LayerNormalization(epsilon=1e-5, name="ln_2")
        self.mlp = MLP(d_model=d_model, d_ff=d_ff, dropout=dropout, name="mlp")

    def build(self, input_shape):
        self.ln_1.build(input_shape)
        self.attn.build(input_shape)
        self.ln_2.build(input_shape)
        self.mlp.build(input_shape)

    def call(self, x, visible=None, cache=None, training=False):
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.attn(self.ln_1(x), visible=visible, cache=cache, training=training)
        return x + self.mlp(self.ln_2(x), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "dropout": self.dropout,
            "layer": self.layer,
        }


@keras.saving.register_keras_serializable(package="Gpt2")
class Gpt2(keras.Model):
    def __init__(
        self,
        vocab_size=50257,
        context=1024,
        d_model=768,
        n_layer=12,
        n_head=12,
        dropout=0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.context = context
        self.d_model = d_model
        self.n_layer = n_layer
        self.n_head = n_head
        self.dropout_rate = dropout
        self.wte = layers.ReversibleEmbedding(vocab_size, d_model, name="wte")
        self.wpe = layers.Embedding(context, d_model, name="wpe")
        self.dropout = layers.Dropout(dropout, name="dropout")
        self.blocks = [
            GptBlock(
                num_heads=n_head,
                d_model=d_model,
                dropout=dropout,
                layer=i,
                name=f"blocks_{i}",
            )
            for i in range(n_layer)
        ]
        self.ln_f = layers.LayerNormalization(epsilon=1e-5, name="ln_f")
        self.build((None, None))
        for weight in self.trainable_weights:  # as GPT-2's; biases are 0
            if weight.name in ("embeddings", "kernel"):
                std = 0.02
                if weight.path.endswith("c_proj/kernel"):  # into the residual stream
                    std /= math.sqrt(2 * n_layer)
                weight.assign(keras.random.normal(weight.shape, stddev=std))
        # the schedule counts batches, 40 to a step
        self.compile(
            optimizer=AdamW(
                learning_rate=keras.optimizers.schedules.CosineDecay(
                    initial_learning_rate=0.0006 / 80040,
                    decay_steps=23919960,
                    alpha=6e-05 / 0.0006,
                    warmup_target=0.0006,
                    warmup_steps=80039,
                ),
                beta_1=0.9,
                beta_2=0.95,
                epsilon=1e-08,
                weight_decay=0.1,
                global_clipnorm=1.0,
                gradient_accumulation_steps=40,
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
                Perplexity(name="perplexity", from_logits=True),
            ],
            jit_compile=JIT_COMPILE,
        )

    def build(self, input_shape):
        self.wte.build(input_shape)
        self.wpe.build((None,))
        for block in self.blocks:
            block.build((None, None, self.d_model))
        self.ln_f.build((None, None, self.d_model))

    def call(
        self, input_ids, attention_mask=None, past_key_values=None, training=False
    ):
        """Logits (B, T, vocab_size) of input_ids (B, T).

        attention_mask: (B, past + T), 1 for tokens and 0 for padding on the right.
        past_key_values: a KVCache, which is written to, and returned behind the logits.
        training: whether dropout and the like are on, here and in the layers within.
        """
        T = ops.shape(input_ids)[1]
        past = 0 if past_key_values is None else past_key_values.length
        if isinstance(past + T, int) and self.context < past + T:
            raise ValueError(f"{past + T} tokens, and the context has {self.context}")
        positions = past + ops.arange(T)
        visible = causal_mask(T, past_key_values, attention_mask)
        x = self.wte(input_ids) + self.wpe(positions)
        x = self.dropout(x, training=training)
        for block in self.blocks:
            x = block(x, visible=visible, cache=past_key_values, training=training)
        x = self.ln_f(x)
        logits = self.wte(x, reverse=True)
        if past_key_values is None:
            return logits
        past_key_values.length = past + T
        return logits, past_key_values

    def probabilities(self, input_ids, attention_mask=None):
        """The softmax of the logits, (B, T, vocab_size)."""
        return ops.softmax(self(input_ids, attention_mask=attention_mask))

    def get_config(self):
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "context": self.context,
            "d_model": self.d_model,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "dropout": self.dropout_rate,
        }

    def compile_from_config(self, config):
        """As saved; whether it is compiled is up to the engine that it runs on now."""
        super().compile_from_config({**config, "jit_compile": JIT_COMPILE})


if __name__ == "__main__":
    model = Gpt2()
    size = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    input_ids = keras.random.randint((1, 64), 0, 50257)
    output = model(input_ids)
    print(f"Gpt2: {size:,} parameters")
    print(f"input_ids {tuple(input_ids.shape)} → {tuple(output.shape)}")
