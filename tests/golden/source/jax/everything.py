"""Net: 9,324 parameters. Written by `neural compile`."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

# Keras' matrices begin uniform after Glorot and Bengio 2010, biases with 0.
glorot_init = nnx.initializers.glorot_uniform()


class Body(nnx.Module):
    def __init__(self, in_features: int, units: int, w: int, *, rngs: nnx.Rngs) -> None:
        self.a = nnx.Linear(in_features, units, kernel_init=glorot_init, rngs=rngs)
        self.b = nnx.Linear(in_features, units, kernel_init=glorot_init, rngs=rngs)
        self.dense = nnx.Linear(2 * units, w, kernel_init=glorot_init, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, in_features) → (B, w)."""
        a = nnx.relu(self.a(x))
        b = self.b(x)
        x = jnp.concatenate((a, b), axis=-1)
        return self.dense(x)


class ResidualBlock(nnx.Module):
    def __init__(self, in_features: int, *, rngs: nnx.Rngs) -> None:
        self.layer_norm = nnx.LayerNorm(
            in_features, epsilon=0.001, use_fast_variance=False, rngs=rngs
        )
        self.dense = nnx.Linear(in_features, 8, kernel_init=glorot_init, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, in_features) → (B, in_features)."""
        return x + self.dense(self.layer_norm(x))


class Net(nnx.Module):
    def __init__(self, w: int = 32, n: int = 3, *, rngs: nnx.Rngs) -> None:
        self.dense_1 = nnx.Linear(20, w, kernel_init=glorot_init, rngs=rngs)
        self.hidden = nnx.List(
            nnx.Linear(w, w, kernel_init=glorot_init, rngs=rngs) for _ in range(n)
        )
        self.bodies = nnx.List(
            Body(in_features=w, units=16, w=w, rngs=rngs) for _ in range(2)
        )
        self.dense_2 = nnx.Linear(w, 16, kernel_init=glorot_init, rngs=rngs)
        self.dense_3 = nnx.Linear(16, 8, kernel_init=glorot_init, rngs=rngs)
        self.dense_4 = nnx.Linear(w, 8, kernel_init=glorot_init, rngs=rngs)
        self.residual_blocks = nnx.List(
            ResidualBlock(in_features=8, rngs=rngs) for _ in range(3)
        )
        self.layer_norms = nnx.List(
            nnx.LayerNorm(8, epsilon=0.5, use_fast_variance=False, rngs=rngs)
            for _ in range(2)
        )
        self.output = nnx.Linear(8, 4, kernel_init=glorot_init, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits (B, 4) of x (B, 20)."""
        x = self.dense_1(x)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
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
            x = jnp.tanh(x)
        return self.output(x)

    def probabilities(self, x: Array) -> Array:
        """The softmax of the logits, (B, 4)."""
        return nnx.softmax(self(x))


def loss_fn(model: Net, x: Array, targets: Array) -> Array:
    """The mean cross-entropy in nats. targets: the right class of each row of logits."""
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def is_matrix(params: nnx.State) -> nnx.State:
    """What decays: tensors of two or more axes; biases and norms' gains do not."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def make_optimizer(model: Net) -> nnx.Optimizer:
    """AdamW as the network's file asks for it."""
    tx = optax.adamw(
        0.001, b1=0.9, b2=0.999, eps=1e-07, weight_decay=0.004, mask=is_matrix
    )
    return nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model: Net, optimizer: nnx.Optimizer, x: Array, targets: Array) -> Array:
    """One step on a batch. Returns the loss before it."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, x, targets)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    model = Net(rngs=nnx.Rngs(0))
    model.eval()
    size = sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    key = jax.random.key(1)
    x = jax.random.normal(key, (2, 20))
    output = model(x)
    print(f"Net: {size:,} parameters")
    print(f"x {x.shape} → {output.shape}")
