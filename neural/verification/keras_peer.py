"""TensorFlow: the generated Keras source, compiled by XLA, with its own training step and cache."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read when keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from neural.backends.keras_training import needs_steps
from neural.backends.module import load_module
from neural.compiler import Program
from neural.interop.keras_weights import load, place
from neural.verification.job import steps_of_training, without_accumulation


class Peer:
    """See neural.verification.peer."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(f"Keras runs on {keras.backend.backend()} here: start with KERAS_BACKEND=tensorflow")
        self._program = without_accumulation(program)
        self._module = load_module(self._program.source("tensorflow"), program.name)
        self._weights = weights
        self._make()

    def _make(self, **given: int) -> None:
        """A fresh model in the place of the one before."""
        self._model = self._step = None
        gc.collect()  # models of Keras are in rings
        self._model = getattr(self._module, self._program.name)(**given)
        load(self._model, self._weights)
        self._step = tf.function(self._read, jit_compile=True)

    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        given = {} if attention_mask is None else {"attention_mask": attention_mask}
        return self._model(self._structured(inputs), **given).numpy()

    def cached(self, ids: np.ndarray) -> np.ndarray:
        layers, length, parts = (), 0, []
        for piece in np.split(ids, ids.shape[1], axis=1):
            read = self._step if layers else self._read  # the first piece makes the cache's tensors
            logits, layers, length = read(piece, layers, tf.constant(length))
            parts.append(logits.numpy())
        return np.concatenate(parts, axis=1)

    def decode(self, ids: np.ndarray, n: int) -> np.ndarray:
        logits, layers, length = self._read(ids, (), 0)
        found = [logits[:, -1:].numpy().argmax(-1)]
        while len(found) < n:
            logits, layers, length = self._step(found[-1], layers, tf.constant(length))
            found.append(logits.numpy().argmax(-1))
        return np.concatenate(found, axis=1)

    def _read(self, ids: Any, layers: Any, length: Any) -> tuple[Any, Any, Any]:
        cache = self._module.KVCache(self._program.context, layers, length)
        logits, cache = self._model(ids, past_key_values=cache)
        return logits, cache.layers, cache.length

    def gradients(self, inputs: list[np.ndarray], targets: np.ndarray) -> dict[str, np.ndarray]:
        places = {name: place(self._model, name) for name in self._weights}
        places = {name: p for name, p in places.items() if p.variable.trainable}
        with tf.GradientTape() as tape:
            loss = self._model.compute_loss(y=targets, y_pred=self._model(self._structured(inputs), training=False))
        found = tape.gradient(loss, [p.variable.value for p in places.values()])
        arrays = {name: tf.convert_to_tensor(g).numpy() for name, g in zip(places, found, strict=True) if g is not None}
        return {name: array.T if places[name].transposed else array for name, array in arrays.items()}

    def steps(self, inputs: list[np.ndarray], targets: np.ndarray, n: int) -> list[float]:
        given = {"steps": steps_of_training(self._program.settings, n)} if needs_steps(self._program.settings) else {}
        self._make(**given)
        model = self._model
        model.jit_compile = False  # XLA takes minutes for what runs five times
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        batch = self._structured(inputs)
        losses = [float(model.train_on_batch(batch, targets, return_dict=True)["loss"]) for _ in range(n)]
        load(model, self._weights)
        return losses

    def _structured(self, inputs: list[np.ndarray]) -> Any:
        names = [v.name for v in self._program.graph.block.inputs]
        return inputs[0] if len(names) == 1 else dict(zip(names, inputs, strict=True))
