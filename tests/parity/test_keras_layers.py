"""Every primitive × its samples in Keras on TensorFlow: values against the oracle and gradients against PyTorch, both in float64;
float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from neural.backends.module import load_module
from neural.graph.graph import weights
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.interop.keras_weights import load, place, read
from neural.layers import REGISTRY
from tests.parity.programs import sample_program

ROWS = [
    pytest.param(name, i, id=f"{name}-{i}")
    for name, cls in REGISTRY.items()
    if name == cls.__name__
    for i in range(len(cls.samples))
]


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    yield
    keras.config.set_dtype_policy(before)


class Case:
    """One sample: its graph, seeded weights and inputs, and the direction in which the output is differentiated.

    held: what the precision holds of numbers.
    """

    def __init__(self, name: str, index: int, held: Callable[[np.ndarray], np.ndarray] = np.copy) -> None:
        self.program = sample_program(REGISTRY[name].samples[index])
        self.graph = optimize(self.program.graph)
        self.weights = {n: held(w) for n, w in initial_weights(self.graph, seed=7, dtype=np.float32).items()}
        self.model = load_module(self.program.source("tensorflow"), "sample").Sample()
        load(self.model, self.weights)
        rng = np.random.default_rng(1)
        value = self.graph.block.inputs[0]
        shape = (3, *(a.value for a in value.shape[1:]))
        ids = value.dtype == "int64"
        self.input = rng.integers(0, 11, shape) if ids else held(rng.normal(size=shape).astype(np.float32))
        wide = {n: w.astype(np.float64) for n, w in self.weights.items()}
        self.oracle = interpret(self.graph, wide, self.input if ids else self.input.astype(np.float64))
        self.probe = rng.normal(size=self.oracle.shape).astype(np.float32)

    def answer(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The output, and its product with the probe differentiated by each weight and by an input of numbers."""
        given = tf.constant(self.input)
        trained = [n for n, w in weights(self.graph.block).items() if w.trained]
        places = {n: place(self.model, n) for n in trained}
        sources = {n: p.variable.value for n, p in places.items()} | (
            {"input": given} if given.dtype.is_floating else {}
        )
        with tf.GradientTape() as tape:
            tape.watch(given)
            output = tf.cast(self.model(given), "float32")
            loss = tf.reduce_sum(output * self.probe)
        found = {n: tf.convert_to_tensor(g) for n, g in tape.gradient(loss, sources).items()}
        arrays = {n: tf.cast(g, "float32").numpy() for n, g in found.items()}
        return output.numpy(), {n: a.T if n in places and places[n].transposed else a for n, a in arrays.items()}

    def gradients_of_pytorch(self) -> dict[str, np.ndarray]:
        model = load_module(self.program.source("pytorch"), "sample").Sample().double().eval()
        model.load_state_dict({n: torch.from_numpy(w) for n, w in self.weights.items()}, strict=False)
        given = torch.from_numpy(self.input)
        given = given.double().requires_grad_() if given.is_floating_point() else given
        (model(given) * torch.from_numpy(self.probe)).sum().backward()
        found = {n: p.grad.numpy() for n, p in model.named_parameters()}
        return found | ({} if given.grad is None else {"input": given.grad.numpy()})


def rounded(array: np.ndarray) -> np.ndarray:
    """To bfloat16 and back."""
    return tf.cast(tf.cast(array, "bfloat16"), "float32").numpy()


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of two arrays, beside the length of the second."""
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-6))


@pytest.mark.parity("TensorFlow", "float32", "values", "gradients")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_values_and_gradients(name: str, index: int) -> None:
    case = Case(name, index)
    values, gradients = case.answer()
    assert np.abs(values - case.oracle).max() <= 2e-5
    expected = case.gradients_of_pytorch()
    assert gradients.keys() == expected.keys()
    for weight, gradient in expected.items():
        assert distance(gradients[weight], gradient) <= 1e-4, weight
    for weight, array in read(case.model, case.weights).items():
        assert np.array_equal(array, case.weights[weight]), weight


@pytest.mark.parity("TensorFlow", "bfloat16", "values", "gradients")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_values_and_gradients_in_bfloat16(name: str, index: int, bfloat16: None) -> None:
    case = Case(name, index, rounded)
    assert keras.backend.standardize_dtype(case.model(case.input).dtype) == "bfloat16"
    values, gradients = case.answer()
    assert distance(values, case.oracle) <= 3e-2
    for weight, gradient in case.gradients_of_pytorch().items():
        assert distance(gradients[weight], gradient) <= 3e-2, weight
