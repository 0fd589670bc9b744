"""JAX source: names, initial weights, dropout, and training as the file asks for it."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from neural.backends.jax_training import rate_expression
from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.interop.jax_weights import load, places, read
from neural.training.schedules import make_schedule
from neural.verification import jax_peer, torch_peer
from neural.verification.job import make_job
from tests.parity.test_models import example


def compiled(layers: str, sections: str = "", input: str = "(8,)", before: str = "") -> Program:
    text = f"{before} network N {{ input: {input} layers: {layers} {sections} }}"
    return compile_source(Source("program.neural", text))


def model_of(program: Program, **given) -> nnx.Module:
    return getattr(load_module(program.source("jax"), "model"), program.name)(rngs=nnx.Rngs(0), **given)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "jax",
        "jnp",
        "np",
        "nnx",
        "optax",
        "Array",
        "rngs",
        "S",
        "T",
        "q",
        "model",
        "targets",
        "loss_fn",
        "train_step",
        "sow",
    ],
)
def test_names_that_mean_something_to_jax(name: str) -> None:
    other = f"{name}1"
    rows = [
        (f"{other} = Dense(${name}) Dense(${name}) Add({other}, input)", f"param {name} = 8"),
        (f"{name} = {name}(8) Dense(8) Add({name}, input)", f"define {name}(a) {{ Dense($a) }}"),
    ]
    for layers, before in rows:
        program = compiled(layers, 'loss: "mean_squared_error"', before=before)
        module = load_module(program.source("jax"), "n")
        model = module.N(rngs=nnx.Rngs(0))
        x = jnp.ones((2, 8))
        assert model(x).shape == (2, 8)
        assert module.loss_fn(model, x, x) > 0
        assert callable(module.train_step) and module.make_optimizer(model)


def test_inputs_that_are_named_like_the_variables_of_training() -> None:
    program = compiled("Add(model, targets)", 'loss: "mean_squared_error"', "{ model: (8,), targets: (8,) }")
    module = load_module(program.source("jax"), "n")
    x = jnp.ones((2, 8))
    assert module.loss_fn(module.N(rngs=nnx.Rngs(0)), x, x, 5 * x) == 9.0


# Weights


def test_starts_as_gpt2_did() -> None:
    model = model_of(example("gpt2", {"n_layer": 8, "vocab_size": 500, "d_model": 192}))
    for name, array in read(model, places(model)).items():
        if name.endswith("bias"):
            assert not array.any(), name
        elif "ln_" in name:
            assert (array == 1).all(), name
        else:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 · 8) is 4
            assert abs(array.std() / expected - 1) < 0.02, name


def test_starts_as_keras_does_without_attention() -> None:
    model = model_of(compiled("Embedding(300, 40) Dense(60)", input="(6,)"))
    bound = math.sqrt(6 / (40 + 60))
    table, kernel = np.array(model.embedding.embedding), np.array(model.dense.kernel)
    for array, limit in ((table, 0.05), (kernel, bound)):
        assert abs(array).max() <= limit
        assert abs(array.std() / (limit / math.sqrt(3)) - 1) < 0.04


TIES = {
    "attend": "t = Embedding(8, 4) Dense(8, tied_to=t)",
    "table": "t = Embedding(9, 4) Dense(9) Dense(4, use_bias=false, tied_to=t)",
    "kernels": "t = Embedding(8, 4) a = Dense(6) b = Dense(t, 6, tied_to=a) Add(a, b) Dense(4, tied_to=a)",
    "tables": "z = Embedding(8, 8) a = PositionalEmbedding(max_length=8, tied_to=z) Dense(8, tied_to=a)",
    "kernel as a table": "t = Embedding(8, 8) a = Dense(8) PositionalEmbedding(max_length=8, tied_to=a)",
}


@pytest.mark.parametrize("layers", TIES.values(), ids=TIES)
def test_shared_weights(layers: str) -> None:
    sections = 'loss: "sparse_categorical_crossentropy" optimizer: SGD(learning_rate=0.1)'
    program = compiled(layers + ' PositionalEmbedding(kind="sinusoidal")', sections, "(6,)")
    job = make_job(program, None, seed=1)
    ours, theirs = (m.Peer(program, job.weights) for m in (jax_peer, torch_peer))
    np.testing.assert_allclose(ours.logits(job.inputs), theirs.logits(job.inputs), atol=2e-6)
    losses = [p.steps(job.inputs, job.targets, 3) for p in (ours, theirs)]
    np.testing.assert_allclose(*losses, atol=1e-6)


def test_weights_come_out_as_they_went_in() -> None:
    program = compiled("BatchNormalization() Dense(3) RMSNormalization()")
    weights = initial_weights(optimize(program.graph), 1, np.float32)
    model = model_of(program)
    load(model, weights)
    for name, array in read(model, weights).items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dense.weight": np.zeros((8, 3))}, r"`dense.weight` .* has \(3, 8\), .* has \(8, 3\)"),
        ({"dense.weight": None}, r"`dense.weight` .* has \(3, 8\), .* lacks it"),
        ({"more.bias": np.zeros(3)}, r"`more.bias` .* lacks it, .* has \(3,\)"),
    ],
)
def test_weights_that_do_not_fit(change: dict, told: str) -> None:
    model = model_of(compiled("Dense(3)"))
    before = read(model, places(model))
    weights = {n: a for n, a in ({n: a + 1 for n, a in before.items()} | change).items() if a is not None}
    with pytest.raises(NeuralError, match=told):
        load(model, weights)
    for name, array in read(model, before).items():
        np.testing.assert_array_equal(array, before[name])


# Dropout


def test_dropout_is_for_training_alone() -> None:
    layers = "Attention(num_heads=2, dropout=0.5, scale=0.3)"
    model = model_of(compiled(layers, input="(64, 8)"))
    x = jnp.ones((50, 64, 8)).at[:, :, 4:].set(2.0)
    model.eval()
    np.testing.assert_allclose(model(x), x, rtol=1e-5)
    model.train()
    one, two = model(x), model(x)
    assert not np.array_equal(one, two)
    assert np.unique(np.array(one[:, 0, 0])).size > 10  # rows have masks of their own
    assert np.unique(np.array(one[0, 0])).size == 2  # and so have heads
    assert abs(float((one / x).mean()) - 1) < 0.02
    assert 0.1 < float((one / x).std()) < 0.15  # sqrt(0.5 / 0.5 / 64) is 0.125


# Training


MLP = 'Dense(6, activation="tanh") BatchNormalization() Dense(4{})'
ROWS = {
    "adamw": ('loss: "mean_squared_error"', ""),
    "adam": ('loss: "mean_absolute_error" optimizer: Adam(learning_rate=0.02, beta_1=0.8)', ""),
    "adamw decays": ('loss: "categorical_crossentropy" optimizer: AdamW(learning_rate=0.02, weight_decay=0.9)', ""),
    "sgd": ('loss: "sparse_categorical_crossentropy" optimizer: SGD()', ""),
    "sgd decays": ('loss: "mean_squared_error" optimizer: SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.3)', ""),
    "nesterov": ('loss: "mean_squared_error" optimizer: SGD(learning_rate=0.1, momentum=0.9, nesterov=true)', ""),
    "idle nesterov": ('loss: "mean_squared_error" optimizer: SGD(nesterov=true)', ""),
    "sigmoid": ('loss: "binary_crossentropy" optimizer: SGD(learning_rate=0.5)', ', activation="sigmoid"'),
    "clip": ('loss: "mean_squared_error" optimizer: SGD(learning_rate=0.5) train { gradient_clip: 0.01 }', ""),
    "schedule": ('loss: "mean_squared_error" lr_schedule: CosineDecay(warmup_steps=2) train { steps: 5 }', ""),
}


@pytest.mark.parametrize("row", ROWS)
def test_trains_as_pytorch_does(row: str) -> None:
    sections, activation = ROWS[row]
    program = compiled(MLP.format(activation), sections)
    job = make_job(program, None, seed=2)
    ours, theirs = (m.Peer(program, job.weights).steps(job.inputs, job.targets, 5) for m in (jax_peer, torch_peer))
    assert len(set(theirs)) == 5
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


SCHEDULES = (
    "Constant()", "Constant(warmup_steps=7)", "CosineDecay()", "CosineDecay(warmup_steps=7, min_learning_rate=1e-4)",
    "CosineDecay(warmup_steps=1, decay_steps=20)", "CosineDecay(min_learning_rate=1e-4, decay_steps=20)",
    "CosineDecay(warmup_steps=70) train { steps: 50 }",
)  # fmt: skip


@pytest.mark.parametrize("written", SCHEDULES)
def test_schedules(written: str) -> None:
    sections = f'loss: "mean_squared_error" optimizer: Adam(learning_rate=3e-3) lr_schedule: {written}'
    settings = compiled("Dense(4)", sections).settings
    ours = eval(rate_expression(settings)[0], {"optax": optax, "steps": 50})
    theirs = make_schedule(settings.lr_schedule, 3e-3, 50)
    for step in range(60):
        assert math.isclose(ours(step) if callable(ours) else ours, theirs(step), rel_tol=1e-5, abs_tol=1e-9), step


def test_accumulates_gradients() -> None:
    """Four batches of two rows in one step are one batch of eight."""
    sections = 'loss: "mean_squared_error" optimizer: SGD(learning_rate=0.1) train { gradient_accumulation: 4 }'
    program = compiled("Dense(3)", sections)
    module = load_module(program.source("jax"), "n")
    x, y = (jax.random.normal(jax.random.key(i), (8, n)) for i, n in enumerate((8, 3)))
    found = []
    for size, count in ((8, 1), (2, 4)):
        model = module.N(rngs=nnx.Rngs(0))
        optimizer = module.make_optimizer(model, accumulation=count)
        for i in range(count):
            module.train_step(model, optimizer, x[i * size :][:size], y[i * size :][:size])
        found.append(model.dense.kernel[...])
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert abs(found[0] - module.N(rngs=nnx.Rngs(0)).dense.kernel[...]).max() > 1e-3
    assert "accumulation: int = 4" in program.source("jax")


def test_a_classifier_is_trained_with_its_padding() -> None:
    program = compiled(
        "Embedding(9, 4) GlobalAveragePooling1D() Dense(3)", 'loss: "sparse_categorical_crossentropy"', "(6,)"
    )
    module = load_module(program.source("jax"), "n")
    model, ids, targets = module.N(rngs=nnx.Rngs(0)), jnp.array([[1, 2, 3, 0, 0, 0]]), jnp.array([2])
    mask = jnp.array([[1, 1, 1, 0, 0, 0]])
    assert module.loss_fn(model, ids, targets, mask) == module.loss_fn(model, ids[:, :3], targets)
    module.train_step(model, module.make_optimizer(model), ids, targets, mask)


def test_no_loss_no_training() -> None:
    source = compiled("Dense(3)").source("jax")
    assert "optax" not in source and "train_step" not in source


# The compiler


def test_writing_loads_no_framework() -> None:
    code = "import sys, json; from neural.cli import main\ntry: main()\nexcept SystemExit as e: print(json.dumps([e.code, sorted(sys.modules)]))"
    command = [sys.executable, "-c", code, "compile", "examples/gpt2.neural", "--backend", "jax"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    status, modules = json.loads(run.stdout.splitlines()[-1])
    assert status == 0, run.stderr
    assert not set(modules) & {"jax", "flax", "optax", "numpy", "torch", "tensorflow", "keras"}
