"""Generated Keras source: what its users do with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.interop.keras_weights import load
from neural.training.schedules import make_schedule
from neural.verification import keras_peer
from tests.parity.test_models import BIDIRECTIONAL, example

TINY = {"vocab_size": 50, "context": 32, "d_model": 16, "n_layer": 1, "n_head": 2, "dropout": 0.0, "steps": 5}


def network(layers: str, input: str = "(8,)", rest: str = "") -> Program:
    return compile_source(Source("x.neural", f"network N {{ input: {input} layers: {layers} {rest} }}"))


def module_of(program: Program) -> ModuleType:
    return load_module(program.source("tensorflow"), program.name.lower())


def ids(length: int = 20) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 50, (3, length))


@pytest.fixture(scope="module")
def gpt() -> Program:
    return example("shakespeare_char", TINY)


@pytest.fixture(scope="module")
def module(gpt: Program) -> ModuleType:
    keras.utils.set_random_seed(0)
    return module_of(gpt)


# Training


@pytest.mark.parametrize(
    "layers",
    ["Dense(8) Dropout(0.5)", "Residual { Dense(8) Dropout(0.5) }", "MultiHeadAttention(num_heads=2, dropout=0.5)"],
)
def test_training_reaches_the_layers_within_a_bare_call(layers: str) -> None:
    """Keras' JAX engine does not go through `__call__`, where the layers within would learn of it."""
    model = module_of(network(layers, "(4, 8)")).N()
    state = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    trained, evaluated = (model.stateless_call(*state, x, training=t)[0] for t in (True, False))
    assert not np.array_equal(trained, evaluated)


def test_training_drops_out_and_counts_batches() -> None:
    """`fit` tells a model of its training only where `call` takes the argument."""
    blocks = "Residual { Dense(8) Dropout(0.9) } * 2 BatchNormalization() Dense(2)"
    program = network(blocks, rest='loss: "mean_squared_error" optimizer: SGD(learning_rate=1e-9)')
    keras.utils.set_random_seed(0)
    model = module_of(program).N()
    model.jit_compile = False
    x, y = np.random.default_rng(0).normal(size=(16, 8)), np.zeros((16, 2))
    losses = [float(model.train_on_batch(x, y)) for _ in range(2)]
    assert losses[0] != losses[1]
    assert float(model.test_on_batch(x, y)) == float(model.test_on_batch(x, y))
    assert np.all(model.batch_norm.moving_mean.numpy() != 0)


def test_fits_at_once_and_is_saved_and_loaded(module: ModuleType, tmp_path: Path) -> None:
    model = module.ShakespeareGpt()
    assert model.jit_compile
    history = model.fit(ids(), ids(), epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["perplexity"][-1] == pytest.approx(np.exp(history["loss"][-1]), rel=1e-3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is module.ShakespeareGpt
    assert np.array_equal(again(ids()), model(ids()))
    assert int(again.optimizer.iterations) == 8
    for kept, variable in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        assert np.array_equal(kept, variable), variable.path


def test_constructor_arguments_are_saved(tmp_path: Path) -> None:
    module = module_of(example("llama", {**{n: TINY[n] for n in ("vocab_size", "context", "d_model", "n_layer")},
                                         "n_head": 4, "n_kv_head": 2, "d_ff": 24}))  # fmt: skip
    model = module.Llama(n_layer=1, context=16, rope_base=50.0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.context, again.rope_base, len(again.blocks)) == (16, 50.0, 1)
    assert np.array_equal(again(ids(16)), model(ids(16)))
    block = module.LlamaBlock.from_config(model.blocks[0].get_config())
    assert block.get_config() == model.blocks[0].get_config()


def test_a_classifier_fits_with_padding() -> None:
    model = module_of(compile_source(Source("c.neural", BIDIRECTIONAL.replace("POOLING", "LastToken()")))).Classifier()
    mask = np.array([[1] * n + [0] * (20 - n) for n in (5, 20, 12)])
    batch = {"input_ids": ids(), "attention_mask": mask}
    assert np.allclose(model(batch), model(ids(), attention_mask=mask))
    model.jit_compile = False  # XLA takes its time
    losses = model.fit(batch, np.array([0, 1, 2]), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_several_inputs_are_a_dict() -> None:
    text = 'x = Dense(a, 8) y = Dense(b, 8) Add(x, y) Dense(1, activation="sigmoid")'
    rest = 'loss: "binary_crossentropy" metrics: ["accuracy"]'
    model = module_of(network(text, "{a: (5,), b: (7,)}", rest)).N()
    model.jit_compile = False  # XLA takes its time
    rng = np.random.default_rng(0)
    batch = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=(4, 7))}
    assert set(model.fit(batch, np.ones((4, 1)), verbose=0).history) == {"loss", "accuracy"}


def test_biases_and_gains_do_not_decay(module: ModuleType) -> None:
    model = module.ShakespeareGpt()
    model.optimizer.build(model.trainable_variables)
    decays = {v.path: model.optimizer._use_weight_decay(v) for v in model.trainable_variables}
    assert {path for path, d in decays.items() if not d} == {
        v.path for v in model.trainable_variables if len(v.shape) < 2
    }
    assert any(decays.values())


@pytest.mark.parametrize(
    ("schedule", "train"),
    [
        ("CosineDecay(warmup_steps=3, min_learning_rate=0.01)", "steps: 12"),
        ("CosineDecay()", "steps: 7"),
        ("CosineDecay(warmup_steps=2, decay_steps=6)", "steps: 12 gradient_accumulation: 4"),
        ("CosineDecay(min_learning_rate=0.1)", "steps: 5 gradient_accumulation: 3"),
        ("Constant(warmup_steps=4)", "steps: 8"),
        ("Constant(warmup_steps=2)", "steps: 8 gradient_accumulation: 5"),
        ("Constant()", "steps: 8 gradient_accumulation: 5"),
    ],
)
def test_learning_rates_are_the_trainers(schedule: str, train: str) -> None:
    rest = f'loss: "mean_squared_error" optimizer: Adam(learning_rate=0.3) lr_schedule: {schedule} train {{ {train} }}'
    program = network("Dense(2)", rest=rest)
    optimizer, settings = module_of(program).N().optimizer, program.settings
    expected = make_schedule(settings.lr_schedule, 0.3, settings.train.steps)
    batches = settings.train.gradient_accumulation
    for step in range(settings.train.steps):
        optimizer._iterations.assign((step + 1) * batches - 1)  # the batch that completes the step
        assert float(optimizer.learning_rate) == pytest.approx(expected(step), rel=1e-5), step


def test_accumulated_batches_are_one_step() -> None:
    rest = 'loss: "mean_squared_error" optimizer: AdamW(learning_rate=0.1) train { gradient_accumulation: 2 }'
    program = network("Dense(3)", rest=rest)
    own = initial_weights(optimize(program.graph), 0, np.float32)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    halves, whole = module_of(program).N(), module_of(network("Dense(3)", rest=rest.replace(": 2", ": 1"))).N()
    for model in (halves, whole):
        load(model, own)
    for part in (slice(0, 2), slice(2, 4)):
        halves.train_on_batch(x[part], y[part])
    whole.train_on_batch(x, y)
    np.testing.assert_allclose(halves.dense.kernel, whole.dense.kernel, atol=1e-6)
    assert not np.allclose(whole.dense.kernel, own["dense.weight"].T, atol=0.05)


def test_the_length_of_the_training_is_asked_for_where_the_file_has_epochs() -> None:
    rest = 'loss: "mean_squared_error" lr_schedule: CosineDecay(warmup_steps=5) train { epochs: 3 }'
    module = module_of(network("Dense(2)", rest=rest))
    schedule = module.N(steps=20).get_compile_config()["optimizer"]["config"]["learning_rate"]["config"]
    assert schedule["decay_steps"] == 14
    assert module.N(steps=20).get_config()["steps"] == 20


def test_starts_as_gpt2_did() -> None:
    keras.utils.set_random_seed(0)
    sets = {"vocab_size": 500, "context": 32, "d_model": 64, "n_layer": 8, "n_head": 2}
    model = module_of(example("gpt2", sets)).Gpt2()
    for weight in model.trainable_weights:
        array, name = weight.numpy(), weight.path
        if weight.name in ("bias", "beta"):
            assert not array.any(), name
        elif weight.name == "gamma":
            assert (array == 1).all(), name
        else:
            expected = 0.02 / 4 if "c_proj" in name else 0.02  # sqrt(2 · 8) is 4
            assert abs(array.std() / expected - 1) < 0.05, name


def test_starts_as_gpt2_did_where_the_names_have_indices() -> None:
    keras.utils.set_random_seed(0)
    layers = "t = Embedding(50, 64) Residual { MultiHeadAttention(num_heads=2) } * 2 Residual { Dense(64) } * 2"
    model = module_of(network(layers + " Dense(50)", "(20,)")).N()
    narrow = {w.path for w in model.trainable_weights if w.name == "kernel" and w.numpy().std() < 0.015}
    assert {p.partition("/")[2] for p in narrow} == {
        *(f"residual_blocks_1_{i}/attention/out/kernel" for i in range(2)),
        *(f"residual_blocks_2_{i}/dense/kernel" for i in range(2)),
    }


@pytest.mark.parametrize("asked", [True, False])
def test_checkpoints_each_block(asked: bool) -> None:
    section = f'execution {{ activation_checkpointing: {str(asked).lower()} }} loss: "mean_squared_error"'
    program = network("Dense(8) Residual { Dense(4) Dense(8) } * 2", rest=section)
    model = module_of(program).N()
    own = initial_weights(optimize(program.graph), 0, np.float32)
    load(model, own)
    x = np.ones((2, 8), np.float32)
    plain = network("Dense(8) Residual { Dense(4) Dense(8) } * 2", rest='loss: "mean_squared_error"')
    job = ([x], np.zeros((2, 8), np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x, training=asked) ** 2) if asked else tf.reduce_mean(model(x) ** 2)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    expected = keras_peer.Peer(plain, own).gradients(*job)
    kernel = model.residual_blocks[1].dense_1.kernel
    found = dict(zip([w.path for w in model.trainable_weights], gradients, strict=True))[kernel.path]
    np.testing.assert_allclose(found.numpy().T, expected["residual_blocks.1.dense_1.weight"], atol=1e-6)
    assert ("keras.remat(" in program.source("tensorflow")) == asked
    assert np.isfinite(model.train_on_batch(*job[0], job[1]))


def test_what_is_computed_again_drops_the_same() -> None:
    layers, again = (
        "Dense(8) Residual { Dense(8) Dropout(0.5) Dense(8) } * 2",
        "execution { activation_checkpointing: true }",
    )
    own = initial_weights(optimize(network(layers).graph), 0, np.float32)
    gradients, x = [], np.ones((4, 8), np.float32)
    for program in (network(layers), network(layers, rest=again)):
        model = module_of(program).N()
        load(model, own)
        for i, variable in enumerate(v for v in model.variables if "seed" in v.path):
            variable.assign([i, 0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        gradients.append(tape.gradient(loss, [v.value for v in model.trainable_variables]))
    for plain, checkpointed in zip(*gradients, strict=True):
        np.testing.assert_allclose(checkpointed, plain, rtol=1e-5)


# The cache


def test_cache_in_pieces(module: ModuleType) -> None:
    model = module.ShakespeareGpt()
    for cuts in ([1], [19], [5, 10], [7, 8, 9]):
        cache, parts = module.KVCache(32), []
        for piece in np.split(ids(), cuts, axis=1):
            logits, cache = model(piece, past_key_values=cache)
            parts.append(logits.numpy())
        assert cache.length == 20
        np.testing.assert_allclose(np.concatenate(parts, 1), model(ids()), atol=1e-5)


def test_a_compiled_step_is_compiled_once(module: ModuleType) -> None:
    model, traces = module.ShakespeareGpt(), []

    @tf.function(jit_compile=True)
    def step(new, layers, length):
        traces.append(new.shape)
        logits, cache = model(new, past_key_values=module.KVCache(32, layers, length))
        return logits, cache.layers, cache.length

    logits, cache = model(ids()[:, :4], past_key_values=module.KVCache(32))
    layers, length, found = cache.layers, tf.constant(cache.length), [logits.numpy()]
    for i in range(4, 20):
        logits, layers, length = step(ids()[:, i : i + 1], layers, length)
        found.append(logits.numpy())
    np.testing.assert_allclose(np.concatenate(found, 1), model(ids()), atol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("wide", [False, True])
def test_padding_with_a_cache(module: ModuleType, wide: bool) -> None:
    model, mask = module.ShakespeareGpt(), np.ones((3, 20), dtype=np.int64)
    mask[1:, 15:] = 0
    _, cache = model(ids()[:, :18], past_key_values=module.KVCache(32), attention_mask=mask[:, :18])
    given = np.pad(mask, ((0, 0), (0, 12))) if wide else mask
    logits, _ = model(ids()[:, 18:], past_key_values=cache, attention_mask=given)
    np.testing.assert_allclose(logits, model(ids(), attention_mask=mask)[:, 18:], atol=1e-5)


def test_no_room(module: ModuleType) -> None:
    model = module.ShakespeareGpt()
    with pytest.raises(ValueError, match="33 tokens, and the context has 32"):
        model(ids(33))
    with pytest.raises(ValueError, match="9 tokens, and the cache holds 8"):
        model(ids(9), past_key_values=module.KVCache(8))
    _, cache = model(ids(8), past_key_values=module.KVCache(8))
    with pytest.raises(ValueError, match="9 tokens, and the cache holds 8"):
        model(ids(1), past_key_values=cache)


def test_lengths_that_a_graph_does_not_know(module: ModuleType) -> None:
    """As from `tf.data` with padded batches."""
    model = module.ShakespeareGpt()
    forward = tf.function(model, input_signature=[tf.TensorSpec((None, None), "int64")])
    np.testing.assert_allclose(forward(ids()), model(ids()), atol=1e-5)


def test_probabilities(module: ModuleType) -> None:
    model = module.ShakespeareGpt()
    np.testing.assert_allclose(model.probabilities(ids()), tf.nn.softmax(model(ids())), atol=1e-6)


def test_attention_drops_weights_in_training_only() -> None:
    layers = "MultiHeadAttention(num_heads=4, num_kv_heads=2, causal=true, dropout=0.5, scale=0.2)"
    model = module_of(network(layers, "(6, 8)")).N()
    x = np.random.default_rng(0).normal(size=(64, 6, 8)).astype(np.float32)
    calm, wild = model(x).numpy(), [model(x, training=True).numpy() for _ in range(2)]
    assert np.array_equal(calm, model(x))
    assert not np.array_equal(*wild)
    assert np.allclose(wild[0].mean(), calm.mean(), atol=0.05)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    np.testing.assert_allclose(model(x, training=True), calm, atol=1e-6)


# The source


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_the_same_file_runs_on_other_engines(engine: str, gpt: Program, module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(gpt.source("tensorflow"))
    model = module.ShakespeareGpt()
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "batch.npz", ids=ids(), logits=model(ids()))
    environment = {**os.environ, "KERAS_BACKEND": engine}
    run = subprocess.run([sys.executable, "-c", ENGINE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split()[:2] == [engine, "True"]


ENGINE = """
import keras, numpy as np
from model import KVCache
batch = np.load("batch.npz")
ids, logits = batch["ids"], batch["logits"]
model = keras.models.load_model("model.keras")
close = lambda found, wanted: np.abs(keras.ops.convert_to_numpy(found) - wanted).max() < 2e-5
first, cache = model(ids[:, :12], past_key_values=KVCache(32))
second, cache = model(ids[:, 12:], past_key_values=cache)
same = close(model(ids), logits) and close(first, logits[:, :12]) and close(second, logits[:, 12:])
losses = model.fit(ids, ids, epochs=3, verbose=0).history["loss"]
jitted = model.jit_compile == (keras.backend.backend() == "jax")
print(keras.backend.backend(), same and jitted and losses[-1] < losses[0])
"""


def test_writing_it_imports_no_framework() -> None:
    code = "import sys; from neural.compiler import load; load('examples/gpt2.neural').source('tensorflow'); "
    code += "print(sorted({'keras', 'tensorflow', 'torch', 'jax', 'numpy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


NAMES = ["keras", "layers", "ops", "visible", "cache", "training", "name", "dtype", "built", "input_shape", "kwargs",
         "inputs", "attend", "losses", "call", "build", "self", "T", "mask", "x", "h", "variables", "path",
         "SGD", "Perplexity", "context", "layer", "trainable", "math", "probabilities", "steps"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_something_to_keras(name: str) -> None:
    uses = f"param {name} = 8 define Body(a, {name} = 2) {{ Dense(${name} * 4) Dense($a) Dropout(0.1) }} "
    text = f"{uses} network N {{ input: (8,) layers: first = Dense(${name}) Body(8) Add(first, input) }}"
    model = module_of(compile_source(Source("x.neural", text))).N()
    assert model(np.ones((2, 8), np.float32)).shape == (2, 8)
    assert type(model).from_config(model.get_config()).first.units == 8
    text = f"define {name}(a) {{ Dense($a) }} network N {{ input: (8,) layers: {name} = {name}(8) Dense(8) Add({name}, input) }}"
    program = compile_source(Source("x.neural", text))
    model = module_of(program).N()
    own = initial_weights(optimize(program.graph), 0, np.float32)
    load(model, own)
    x = np.ones((2, 8), np.float32)
    np.testing.assert_allclose(model(x), interpret(optimize(program.graph), own, x), atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        "q = Dense(8) k = Dense(input, 8) v = Dense(input, 8) a = Attention(q, k, v, num_heads=2) Add(a, q, k, v)",
        "q = Dense(8) k = Dense(input, 8) v = Dense(input, 8) a = Attention(v, q, k, num_heads=2) b = Attention(k, v, q, num_heads=4) Add(a, b)",
        "h = Dense(8) x = Dense(input, 8) a = Attention(x, h, x, num_heads=2) Add(a, h, x, input)",
    ],
)
def test_attention_overwrites_nothing_that_is_read_later(layers: str) -> None:
    program = network(layers, "(4, 8)")
    own = initial_weights(optimize(program.graph), 1, np.float32)
    model = module_of(program).N()
    load(model, own)
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(model(x), interpret(optimize(program.graph), own, x), atol=1e-5)
