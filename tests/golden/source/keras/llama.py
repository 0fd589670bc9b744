"""Llama: 1,100,048,384 parameters. Written by `neural compile`."""

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


@keras.saving.register_keras_serializable(package="Llama")
class Perplexity(keras.metrics.SparseCategoricalCrossentropy):
    """The exponential of the mean cross-entropy."""

    def result(self):
        return ops.exp(super().result())


@keras.saving.register_keras_serializable(package="Llama")
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


def rotate(x, rope):
    """Turn each pair (x[i], x[i + head_dim / 2]) of x by its position's angle."""
    cos, sin = (ops.cast(part, x.dtype) for part in rope)
    first, second = ops.split(x, 2, axis=-1)
    return x * cos + ops.concatenate((-second, first), axis=-1) * sin


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


def rotary(positions, head_dim, base):
    """Cosines and sines of rotary positions (Su et al. 2021), (T, 1, head_dim) each."""
    steps = ops.arange(0, head_dim, 2, dtype="float32")
    frequencies = 1.0 / base ** (steps / head_dim)
    angles = ops.cast(positions, "float32")[:, None, None] * frequencies
    angles = ops.concatenate((angles, angles), axis=-1)
    return ops.cos(angles), ops.sin(angles)


@keras.saving.register_keras_serializable(package="Llama")
class MultiHeadAttention(layers.Layer):
    def __init__(self, d_model, num_heads, num_kv_heads, layer, **kwargs):
        super().__init__(**kwargs)
        self.d_model = d_model
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.qkv_ends = (
            d_model,
            d_model + num_kv_heads * (d_model // num_heads),
            d_model + 2 * (num_kv_heads * (d_model // num_heads)),
        )
        self.layer = layer
        self.qkv = layers.Dense(self.qkv_ends[-1], use_bias=False, name="qkv")
        self.out = layers.Dense(d_model, use_bias=False, name="out")

    def build(self, input_shape):
        self.qkv.build(input_shape)
        self.out.build(input_shape)

    def call(self, x, rope, visible=None, cache=None):
        """(B, T, d_model) → (B, T, d_model)."""
        q, k, v = ops.split(self.qkv(x), self.qkv_ends[:-1], axis=-1)
        q = split_heads(q, self.num_heads)
        k = split_heads(k, self.num_kv_heads)
        v = split_heads(v, self.num_kv_heads)
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        x = ops.dot_product_attention(q, k, v, mask=visible, is_causal=visible is None)
        x = merge_heads(x)
        return self.out(x)

    def get_config(self):
        return {
            **super().get_config(),
            "d_model": self.d_model,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "layer": self.layer,
        }


@keras.saving.register_keras_serializable(package="Llama")
class SwiGLU(layers.Layer):
    def __init__(self, d_model, d_ff, **kwargs):
        super().__init__(**kwargs)
        self.d_model = d_model
        self.d_ff = d_ff
        self.gate = layers.Dense(d_ff, activation="silu", use_bias=False, name="gate")
        self.up = layers.Dense(d_ff, use_bias=False, name="up")
        self.down = layers.Dense(d_model, use_bias=False, name="down")

    def build(self, input_shape):
        self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.d_ff))

    def call(self, x):
        """(B, T, d_model) → (B, T, d_model)."""
        gate = self.gate(x)
        x = gate * self.up(x)
        return self.down(x)

    def get_config(self):
        return {**super().get_config(), "d_model": self.d_model, "d_ff": self.d_ff}


@keras.saving.register_keras_serializable(package="Llama")
class LlamaBlock(layers.Layer):
    def __init__(self, num_heads, num_kv_heads, d_model, d_ff, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.d_model = d_model
        self.d_ff = d_ff
        self.attention_norm = layers.RMSNormalization(
            epsilon=1e-5, name="attention_norm"
        )
        self.attention = MultiHeadAttention(
            d_model=d_model,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            layer=layer,
            name="attention",
        )
        self.mlp_norm = layers.RMSNormalization(epsilon=1e-5, name="mlp_norm")
        self.mlp = SwiGLU(d_model=d_model, d_ff=d_ff, name="mlp")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape)
        self.mlp_norm.build(input_shape)
        self.mlp.build(input_shape)

    def call(self, x, rope, visible=None, cache=None):
        """(B, T, d_model) → (B, T, d_model)."""
        x = x + self.attention(
            self.attention_norm(x), visible=visible, rope=rope, cache=cache
        )
        return x + self.mlp(self.mlp_norm(x))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "layer": self.layer,
        }


@keras.saving.register_keras_serializable(package="Llama")
class Llama(keras.Model):
    def __init__(
        self,
        vocab_size=32000,
        context=2048,
        d_model=2048,
        n_layer=22,
        n_head=32,
        n_kv_head=4,
        d_ff=5632,
        rope_base=10000.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.context = context
        self.d_model = d_model
        self.n_layer = n_layer
        self.n_head = n_head
        self.n_kv_head = n_kv_head
        self.d_ff = d_ff
        self.rope_base = rope_base
        self.head_dim = d_model // n_head
        self.tokens = layers.Embedding(vocab_size, d_model, name="tokens")
        self.blocks = [
            LlamaBlock(
                num_heads=n_head,
                num_kv_heads=n_kv_head,
                d_model=d_model,
                d_ff=d_ff,
                layer=i,
                name=f"blocks_{i}",
            )
            for i in range(n_layer)
        ]
        self.norm = layers.RMSNormalization(epsilon=1e-5, name="norm")
        self.head = layers.Dense(vocab_size, use_bias=False, name="head")
        self.build((None, None))
        for weight in self.trainable_weights:  # as GPT-2's; biases are 0
            if weight.name in ("embeddings", "kernel"):
                std = 0.02
                # into the residual stream
                if weight.path.endswith(("out/kernel", "down/kernel")):
                    std /= math.sqrt(2 * n_layer)
                weight.assign(keras.random.normal(weight.shape, stddev=std))
        # the schedule counts batches, 64 to a step
        self.compile(
            optimizer=AdamW(
                learning_rate=keras.optimizers.schedules.CosineDecay(
                    initial_learning_rate=0.0004 / 128064,
                    decay_steps=31871936,
                    alpha=4e-05 / 0.0004,
                    warmup_target=0.0004,
                    warmup_steps=128063,
                ),
                beta_1=0.9,
                beta_2=0.95,
                epsilon=1e-08,
                weight_decay=0.1,
                global_clipnorm=1.0,
                gradient_accumulation_steps=64,
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[Perplexity(name="perplexity", from_logits=True)],
            jit_compile=JIT_COMPILE,
        )

    def build(self, input_shape):
        self.tokens.build(input_shape)
        for block in self.blocks:
            block.build((None, None, self.d_model))
        self.norm.build((None, None, self.d_model))
        self.head.build((None, None, self.d_model))

    def call(self, input_ids, attention_mask=None, past_key_values=None):
        """Logits (B, T, vocab_size) of input_ids (B, T).

        attention_mask: (B, past + T), 1 for tokens and 0 for padding on the right.
        past_key_values: a KVCache, which is written to, and returned behind the logits.
        """
        T = ops.shape(input_ids)[1]
        past = 0 if past_key_values is None else past_key_values.length
        if isinstance(past + T, int) and self.context < past + T:
            raise ValueError(f"{past + T} tokens, and the context has {self.context}")
        positions = past + ops.arange(T)
        visible = causal_mask(T, past_key_values, attention_mask)
        rope = rotary(positions, self.head_dim, self.rope_base)
        x = self.tokens(input_ids)
        for block in self.blocks:
            x = block(x, visible=visible, rope=rope, cache=past_key_values)
        x = self.norm(x)
        logits = self.head(x)
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
            "n_kv_head": self.n_kv_head,
            "d_ff": self.d_ff,
            "rope_base": self.rope_base,
        }

    def compile_from_config(self, config):
        """As saved; whether it is compiled is up to the engine that it runs on now."""
        super().compile_from_config({**config, "jit_compile": JIT_COMPILE})


if __name__ == "__main__":
    model = Llama()
    size = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    input_ids = keras.random.randint((1, 64), 0, 32000)
    output = model(input_ids)
    print(f"Llama: {size:,} parameters")
    print(f"input_ids {tuple(input_ids.shape)} → {tuple(output.shape)}")
