"""Every primitive × its samples in JAX: values against the NumPy oracle, gradients against PyTorch; float32, bfloat16."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from neural.backends.module import load_module
from neural.graph.interpreter import interpret
from neural.interop.jax_weights import load, places
from neural.layers import REGISTRY
from tests.parity.programs import sample_program
from tests.parity.test_layers import ROWS, build


class Answer(NamedTuple):
    """What a network gives, and the gradients of its product with a probe: by weight, and by input where that is numbers."""

    values: np.ndarray
    gradients: dict[str, np.ndarray]


@cache
def case(name: str, index: int, dtype: str) -> tuple[Answer, Answer]:
    """(ours, expected), of weights and inputs that the dtype can hold."""
    graph, model, own, inputs = build(name, index)
    if dtype == "bfloat16":
        own = {n: rounded(w) for n, w in own.items()}
        inputs = [x if x.dtype.kind == "i" else rounded(x) for x in inputs]
    model.load_state_dict({n: torch.from_numpy(w) for n, w in own.items()}, strict=False)
    values = interpret(graph, own, *inputs)
    probe = np.random.default_rng(2).normal(size=values.shape)
    ours = in_jax(sample_program(REGISTRY[name].samples[index]).source("jax"), own, inputs, probe, dtype)
    return ours, Answer(values, in_torch(model, inputs, probe))


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16 and back."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def in_torch(model: torch.nn.Module, inputs: list[np.ndarray], probe: np.ndarray) -> dict[str, np.ndarray]:
    given = [torch.from_numpy(x) for x in inputs]
    for x in given:
        x.requires_grad_(x.is_floating_point())
    (model(*given) * torch.from_numpy(probe)).sum().backward()
    found = {n: p.grad.numpy() for n, p in model.named_parameters()}
    return found | {f"input {i}": x.grad.numpy() for i, x in enumerate(given) if x.is_floating_point()}


def in_jax(source: str, own: dict, inputs: list[np.ndarray], probe: np.ndarray, dtype: str) -> Answer:
    model = load_module(source, "sample").Sample(rngs=nnx.Rngs(0))
    model.eval()
    load(model, own)
    if dtype == "bfloat16":
        nnx.update(model, jax.tree.map(lambda p: p.astype(dtype), nnx.state(model, nnx.Param)))
        model.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
    given = [jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else dtype) for x in inputs]

    def total(model: nnx.Module, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = model(x)
        return (y.astype(jnp.float32) * probe).sum(), y

    by = (0,) if given[0].dtype == jnp.int32 else (0, 1)
    (gradient, *of_input), y = nnx.jit(nnx.grad(total, argnums=by, has_aux=True))(model, *given)
    assert y.dtype == dtype
    trained = {n for n, place in places(model).items() if isinstance(place.variable, nnx.Param)}
    nnx.update(model, gradient)
    found = {n: (p.variable[...], p.transposed) for n, p in places(model).items() if n in trained}
    gradients = {n: np.asarray(g.T if t else g, np.float64) for n, (g, t) in found.items()}
    gradients |= {f"input {i}": np.asarray(g, np.float64) for i, g in enumerate(of_input)}
    return Answer(np.asarray(y, np.float64), gradients)


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_float32_values(name: str, index: int) -> None:
    ours, expected = case(name, index, "float32")
    np.testing.assert_allclose(ours.values, expected.values, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_float32_gradients(name: str, index: int) -> None:
    ours, expected = case(name, index, "float32")
    assert set(ours.gradients) == set(expected.gradients)
    for weight, gradient in expected.gradients.items():
        error = np.linalg.norm(ours.gradients[weight] - gradient)
        assert error <= 1e-4 * np.linalg.norm(gradient) + 1e-6, weight


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_bfloat16_values(name: str, index: int) -> None:
    ours, expected = case(name, index, "bfloat16")
    assert np.linalg.norm(ours.values - expected.values) <= 3e-2 * np.linalg.norm(expected.values)


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_bfloat16_gradients(name: str, index: int) -> None:
    ours, expected = case(name, index, "bfloat16")
    assert set(ours.gradients) == set(expected.gradients)
    for weight, gradient in expected.gradients.items():
        error = np.linalg.norm(ours.gradients[weight] - gradient)
        assert error <= 3e-2 * np.linalg.norm(gradient) + 1e-2, weight
