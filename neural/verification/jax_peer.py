"""JAX: the generated source, with its own loss, optimizer and cache."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from neural.backends.module import load_module
from neural.compiler import Program
from neural.interop.jax_weights import load, places, read
from neural.verification.job import steps_of_training, without_accumulation


class Peer:
    """See neural.verification.peer."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        self._program = program = without_accumulation(program)
        self._module = load_module(program.source("jax"), program.name)
        self._start = weights
        self._model = getattr(self._module, program.name)(rngs=nnx.Rngs(0))
        self._model.eval()
        load(self._model, weights)
        self._forward = nnx.jit(lambda model, inputs, **given: model(*inputs, **given))

    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        given = {} if attention_mask is None else {"attention_mask": jnp.asarray(attention_mask)}
        return np.asarray(self._forward(self._model, _arrays(inputs), **given))

    def cached(self, ids: np.ndarray) -> np.ndarray:
        cache, parts = self._model.init_cache(*ids.shape), []
        for piece in np.split(ids, ids.shape[1], axis=1):
            logits, cache = self._read(piece, cache)
            parts.append(np.asarray(logits))
        return np.concatenate(parts, axis=1)

    def decode(self, ids: np.ndarray, n: int) -> np.ndarray:
        cache, new, found = self._model.init_cache(len(ids), ids.shape[1] + n), ids, []
        for _ in range(n):
            logits, cache = self._read(new, cache)
            new = np.asarray(logits[:, -1:].argmax(-1))
            found.append(new)
        return np.concatenate(found, axis=1).astype(ids.dtype)

    def gradients(self, inputs: list[np.ndarray], targets: np.ndarray) -> dict[str, np.ndarray]:
        gradient = nnx.jit(nnx.grad(self._module.loss_fn))(self._model, *_arrays([*inputs, targets]))
        holder = nnx.clone(self._model)
        nnx.update(holder, gradient)
        known = places(holder)
        return read(holder, [name for name in self._start if isinstance(known[name].variable, nnx.Param)])

    def steps(self, inputs: list[np.ndarray], targets: np.ndarray, n: int) -> list[float]:
        takes_steps = "steps" in signature(self._module.make_optimizer).parameters
        given = {"steps": steps_of_training(self._program.settings, n)} if takes_steps else {}
        optimizer = self._module.make_optimizer(self._model, **given)
        batch = _arrays([*inputs, targets])
        norms = [m for _, m in nnx.iter_modules(self._model) if isinstance(m, nnx.BatchNorm)]
        for norm in norms:
            norm.train()
        losses = [float(self._module.train_step(self._model, optimizer, *batch)) for _ in range(n)]
        self._model.eval()
        load(self._model, self._start)
        return losses

    def _read(self, ids: np.ndarray, cache: object) -> tuple[Array, object]:
        return self._forward(self._model, _arrays([ids]), past_key_values=cache)


def _arrays(batch: list[np.ndarray]) -> list[Array]:
    return [jnp.asarray(array, jnp.int32 if array.dtype.kind == "i" else jnp.float32) for array in batch]
