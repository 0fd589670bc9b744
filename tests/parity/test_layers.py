"""Every primitive × its samples: PyTorch against the NumPy interpreter, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neural.backends.module import load_module
from neural.graph.graph import weights
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.layers import REGISTRY
from tests.parity.programs import sample_program

ROWS = [(name, i) for name, cls in REGISTRY.items() if name == cls.__name__ for i in range(len(cls.samples))]


def build(name: str, index: int):
    program = sample_program(REGISTRY[name].samples[index])
    graph = optimize(program.graph)
    model = load_module(program.source(), "sample").Sample().double().eval()
    own = initial_weights(graph, seed=7)
    state = {k: torch.from_numpy(v) for k, v in own.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(m.endswith("num_batches_tracked") for m in missing)
    rng = np.random.default_rng(1)
    inputs = []
    for value in graph.block.inputs:
        shape = (3, *(a.value for a in value.shape[1:]))
        inputs.append(rng.integers(0, 11, shape) if value.dtype == "int64" else rng.normal(size=shape))
    return graph, model, own, inputs


@pytest.mark.parity("PyTorch", "float32", "values")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_values_equal_the_oracle(name: str, index: int) -> None:
    graph, model, own, inputs = build(name, index)
    with torch.no_grad():
        ours = model(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(
        ours, interpret(graph, own, *inputs), rtol=1e-6, atol=1e-6
    )  # rotary angles are float32 in any model


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_weights_have_the_declared_names_and_shapes(name: str, index: int) -> None:
    graph, model, _, _ = build(name, index)
    declared = {n: w.shape for n, w in weights(graph.block).items()}
    actual = {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert actual == declared
    assert {n for n, w in weights(graph.block).items() if w.trained} == {n for n, _ in model.named_parameters()}


@pytest.mark.parity("PyTorch", "float32", "gradients")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_gradients_equal_finite_differences_of_the_oracle(name: str, index: int) -> None:
    graph, model, own, inputs = build(name, index)
    out = model(*map(torch.from_numpy, inputs))
    probe = np.random.default_rng(2).normal(size=out.shape)
    if not own:
        return  # nothing to differentiate by; the input's gradient follows from the values of a layer without weights
    (out * torch.from_numpy(probe)).sum().backward()
    rng = np.random.default_rng(3)
    for weight, parameter in model.named_parameters():
        for _ in range(2):
            at = tuple(int(rng.integers(n)) for n in own[weight].shape)
            slope = _slope(graph, own, inputs, probe, weight, at)
            np.testing.assert_allclose(parameter.grad[at].item(), slope, rtol=1e-4, atol=1e-5, err_msg=f"{weight}{at}")


@pytest.mark.parity("PyTorch", "bfloat16", "values", "gradients")
@pytest.mark.parametrize(("name", "index"), ROWS)
def test_bfloat16(name: str, index: int) -> None:
    """Against float64 with the same weights and inputs, which bfloat16 holds."""
    _, exact, own, inputs = build(name, index)
    narrow = load_module(sample_program(REGISTRY[name].samples[index]).source(), "sample").Sample().eval()
    state = {k: torch.from_numpy(v).bfloat16() for k, v in own.items()}
    answers = []
    for model, dtype in ((narrow.bfloat16(), torch.bfloat16), (exact, torch.float64)):
        model.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=False)
        given = [torch.from_numpy(x) for x in inputs]
        given = [x.bfloat16().to(dtype) if x.is_floating_point() else x for x in given]
        out = model(*given)
        assert out.dtype == dtype
        if own:
            (out.double() * torch.from_numpy(np.random.default_rng(2).normal(size=out.shape))).sum().backward()
        answers.append((out.detach().double(), {n: p.grad.double() for n, p in model.named_parameters()}))
    (values, gradients), (expected, expected_gradients) = answers
    assert (values - expected).norm() <= 3e-2 * expected.norm()
    for weight, gradient in expected_gradients.items():
        assert (gradients[weight] - gradient).norm() <= 3e-2 * gradient.norm() + 1e-2, weight


def _slope(graph, own, inputs, probe, weight: str, at: tuple[int, ...], step: float = 1e-5) -> float:
    sums = []
    for sign in (1, -1):
        moved = {**own, weight: own[weight].copy()}
        moved[weight][at] += sign * step
        sums.append((interpret(graph, moved, *inputs) * probe).sum())
    return (sums[0] - sums[1]) / (2 * step)
