"""Whole models in JAX against PyTorch: logits, padding, gradients, five steps, the cache, 64 greedy tokens."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.interop.jax_weights import load
from neural.verification import jax_peer, torch_peer
from neural.verification.job import Job, make_job
from tests.parity.test_models import BIDIRECTIONAL, SMALL, WINDOWED, example

CONTEXT = 80  # room for a prompt of 8 and 64 tokens


def programs() -> dict[str, Program]:
    sizes = {**SMALL, "shakespeare_char": {**SMALL["shakespeare_char"], "n_layer": 1}}
    found = {name: example(name, {**sets, "context": CONTEXT}) for name, sets in sizes.items()}
    found["windowed"] = compile_source(Source("windowed.neural", WINDOWED.replace("32", str(CONTEXT))))
    text = Path("tests/fixtures/tutorial/gpt_decoder.neural").read_text()
    for old, new in (("50257", "50"), ("3072", "64"), ("768", "16"), ("12", "2"), ("1024", str(CONTEXT))):
        text = text.replace(old, new)
    first, last = text.index("    GptBlock("), text.rindex("    GptBlock(")
    found["tutorial"] = compile_source(Source("tutorial.neural", text[:first] + text[last:]))  # one block is enough
    return found


class Case:
    """A program with both peers, and a job for them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.job: Job = make_job(program, None, seed=3)
        self.jax = jax_peer.Peer(program, self.job.weights)
        self.torch = torch_peer.Peer(program, self.job.weights)

    @property
    def prompt(self) -> np.ndarray:
        return self.job.inputs[0][:, :8]


@pytest.fixture(scope="module", params=programs().items(), ids=lambda row: row[0])
def case(request) -> Case:
    return Case(request.param[1])


def test_logits(case: Case) -> None:
    ours, theirs = (peer.logits(case.job.inputs) for peer in (case.jax, case.torch))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_logits_of_padded_rows(case: Case) -> None:
    ours, theirs = (peer.logits(case.job.inputs, case.job.mask) for peer in (case.jax, case.torch))
    real = case.job.mask.astype(bool)
    np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=2e-5)
    assert np.isfinite(ours).all()


def test_gradients(case: Case) -> None:
    ours, theirs = (peer.gradients(case.job.inputs, case.job.targets) for peer in (case.jax, case.torch))
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert np.linalg.norm(ours[name] - gradient) <= 1e-4 * np.linalg.norm(gradient), name


def test_five_steps(case: Case) -> None:
    ours, theirs = (peer.steps(case.job.inputs, case.job.targets, 5) for peer in (case.jax, case.torch))
    assert len(set(theirs)) == 5
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    again = case.jax.logits(case.job.inputs)
    np.testing.assert_allclose(again, case.torch.logits(case.job.inputs), rtol=0, atol=2e-5, err_msg="weights put back")


def test_64_greedy_tokens_through_the_cache(case: Case) -> None:
    ours, theirs = (peer.decode(case.prompt, 64) for peer in (case.jax, case.torch))
    np.testing.assert_array_equal(ours, theirs)


def test_logits_through_the_cache(case: Case) -> None:
    ours = case.jax.cached(case.job.inputs[0])
    np.testing.assert_allclose(ours, case.torch.logits(case.job.inputs), rtol=0, atol=2e-5)


# The cache, on one small model


@pytest.fixture(scope="module")
def model() -> nnx.Module:
    program = programs()["windowed"]
    made = load_module(program.source("jax"), "cached").Windowed(rngs=nnx.Rngs(0))
    made.eval()
    load(made, make_job(program, None, seed=4).weights)
    return made


forward = nnx.jit(lambda model, ids, **given: model(ids, **given))
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 20)), jnp.int32)


def test_the_callers_cache_stays_as_it_is(model) -> None:
    empty = model.init_cache(2, 20)
    _, first = model(IDS[:, :10], past_key_values=empty)
    before = jax.tree.map(np.array, first)
    once, _ = model(IDS[:, 10:], past_key_values=first)
    again, _ = model(IDS[:, 10:], past_key_values=first)
    np.testing.assert_array_equal(once, again)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, first))
    assert (int(empty.length), int(first.length)) == (0, 10)


def test_a_step_of_one_token_is_compiled_once(model) -> None:
    traced = []

    @nnx.jit
    def step(model, ids, cache):
        traced.append(ids.shape)
        return model(ids, past_key_values=cache)

    cache, parts = model.init_cache(2, CONTEXT), []
    for t in range(20):
        logits, cache = step(model, IDS[:, t : t + 1], cache)
        parts.append(logits)
    assert traced == [(2, 1)]
    np.testing.assert_allclose(jnp.concatenate(parts, 1), forward(model, IDS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
def test_padding_with_a_cache(model, wide: bool) -> None:
    """A row of 5 tokens and padding, then tokens that go on behind the padding, as a batch of prompts does."""
    mask = np.ones((2, 20), np.int32)
    mask[1, 5:9] = 0
    whole = forward(model, IDS, attention_mask=jnp.asarray(mask))
    cache, at, parts = model.init_cache(2, 30), 0, []
    for length in (9, 1, 10):
        known = mask[:, : at + length]
        given = np.pad(known, ((0, 0), (0, 30 - known.shape[1]))) if wide else known
        ids = IDS[:, at : at + length]
        logits, cache = forward(model, ids, attention_mask=jnp.asarray(given), past_key_values=cache)
        parts.append(logits)
        at += length
    real = mask.astype(bool)
    np.testing.assert_allclose(jnp.concatenate(parts, 1)[real], whole[real], rtol=0, atol=1e-5)


def test_no_room(model) -> None:
    with pytest.raises(ValueError, match="81 tokens, and the context has 80"):
        model(jnp.zeros((1, 81), jnp.int32))
    with pytest.raises(ValueError, match="81 tokens, and the context has 80"):
        model.init_cache(1, 81)
    _, cache = forward(model, IDS[:, :6], past_key_values=model.init_cache(2, 6))
    with pytest.raises(ValueError, match="7 tokens, and the cache holds 6"):
        model(IDS[:, :1], past_key_values=cache)


def test_probabilities(model) -> None:
    np.testing.assert_allclose(nnx.jit(lambda model: model.probabilities(IDS))(model).sum(-1), 1.0, atol=1e-5)


# Classifiers


@pytest.mark.parametrize("pooling", ["GlobalAveragePooling1D()", "GlobalMaxPooling1D()", "LastToken()"])
def test_padding_of_a_classifier(pooling: str) -> None:
    case = Case(compile_source(Source("c.neural", BIDIRECTIONAL.replace("POOLING", pooling))))
    ids = case.job.inputs[0]
    mask = np.array([[1] * n + [0] * (ids.shape[1] - n) for n in (5, ids.shape[1])])
    together = case.jax.logits([ids], mask)
    np.testing.assert_allclose(together, case.torch.logits([ids], mask), rtol=0, atol=2e-5)
    np.testing.assert_allclose(together[:1], case.jax.logits([ids[:1, :5]]), rtol=0, atol=2e-5)
    assert np.abs(together - case.jax.logits([ids])).max() > 1e-3
