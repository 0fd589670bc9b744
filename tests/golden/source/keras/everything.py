"""Net: 9,324 parameters. Written by `neural compile`."""

import math

import keras
from keras import layers, ops

# On PyTorch it is torch.compile, which takes minutes and wants a C++ compiler.
JIT_COMPILE = keras.backend.backend() != "torch"


@keras.saving.register_keras_serializable(package="Net")
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


@keras.saving.register_keras_serializable(package="Net")
class Body(layers.Layer):
    def __init__(self, units, w, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.w = w
        self.a = layers.Dense(units, activation="relu", name="a")
        self.b = layers.Dense(units, name="b")
        self.dense = layers.Dense(w, name="dense")

    def build(self, input_shape):
        self.a.build(input_shape)
        self.b.build(input_shape)
        self.dense.build((*input_shape[:-1], 2 * self.units))

    def call(self, x):
        """(B, in_features) → (B, w)."""
        a = self.a(x)
        b = self.b(x)
        x = ops.concatenate((a, b), axis=-1)
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "w": self.w}


@keras.saving.register_keras_serializable(package="Net")
class ResidualBlock(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer_norm = layers.LayerNormalization(epsilon=0.001, name="layer_norm")
        self.dense = layers.Dense(8, name="dense")

    def build(self, input_shape):
        self.layer_norm.build(input_shape)
        self.dense.build(input_shape)

    def call(self, x):
        """(B, in_features) → (B, in_features)."""
        return x + self.dense(self.layer_norm(x))


@keras.saving.register_keras_serializable(package="Net")
class Net(keras.Model):
    def __init__(self, w=32, n=3, **kwargs):
        super().__init__(**kwargs)
        self.w = w
        self.n = n
        self.dense_1 = layers.Dense(w, name="dense_1")
        self.hidden = [
            layers.Dense(w, activation="relu", name=f"hidden_{i}") for i in range(n)
        ]
        self.bodies = [Body(units=16, w=w, name=f"bodies_{i}") for i in range(2)]
        self.dense_2 = layers.Dense(16, name="dense_2")
        self.dense_3 = layers.Dense(8, name="dense_3")
        self.dense_4 = layers.Dense(8, name="dense_4")
        self.residual_blocks = [
            ResidualBlock(name=f"residual_blocks_{i}") for i in range(3)
        ]
        self.layer_norms = [
            layers.LayerNormalization(epsilon=0.5, name=f"layer_norms_{i}")
            for i in range(2)
        ]
        self.output_ = layers.Dense(4, name="output_")
        self.build((None, 20))
        self.compile(
            optimizer=AdamW(
                learning_rate=0.001,
                beta_1=0.9,
                beta_2=0.999,
                epsilon=1e-07,
                weight_decay=0.004,
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=JIT_COMPILE,
        )

    def build(self, input_shape):
        self.dense_1.build(input_shape)
        for layer in self.hidden:
            layer.build((*input_shape[:-1], self.w))
        for block in self.bodies:
            block.build((*input_shape[:-1], self.w))
        self.dense_2.build((*input_shape[:-1], self.w))
        self.dense_3.build((*input_shape[:-1], 16))
        self.dense_4.build((*input_shape[:-1], self.w))
        for block in self.residual_blocks:
            block.build((*input_shape[:-1], 8))
        for layer in self.layer_norms:
            layer.build((*input_shape[:-1], 8))
        self.output_.build((*input_shape[:-1], 8))

    def call(self, x):
        """Logits (B, 4) of x (B, 20)."""
        x = self.dense_1(x)
        for layer in self.hidden:
            x = layer(x)
        for block in self.bodies:
            x = block(x)
        h = self.dense_2(x)
        h = self.dense_3(h)
        x = self.dense_4(x)
        x = x + h
        for block in self.residual_blocks:
            x = block(x)
        for layer in self.layer_norms:
            x = layer(x)
        for _ in range(2):
            x = ops.tanh(x)
        return self.output_(x)

    def probabilities(self, x):
        """The softmax of the logits, (B, 4)."""
        return ops.softmax(self(x))

    def get_config(self):
        return {**super().get_config(), "w": self.w, "n": self.n}

    def compile_from_config(self, config):
        """As saved; whether it is compiled is up to the engine that it runs on now."""
        super().compile_from_config({**config, "jit_compile": JIT_COMPILE})


if __name__ == "__main__":
    model = Net()
    size = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    x = keras.random.normal((2, 20))
    output = model(x)
    print(f"Net: {size:,} parameters")
    print(f"x {tuple(x.shape)} → {tuple(output.shape)}")
