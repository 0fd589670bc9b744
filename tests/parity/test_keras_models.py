"""Whole models in Keras on TensorFlow beside PyTorch: logits, padding, gradients, training steps, greedy text."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import interpret
from neural.graph.passes import optimize
from neural.verification import keras_peer, torch_peer
from neural.verification.job import Job, make_job
from tests.parity.test_models import BIDIRECTIONAL, example

SIZES = {"vocab_size": 50, "context": 80, "d_model": 16, "n_layer": 2}
SMALL = {
    "gpt2": {**SIZES, "n_head": 2},
    "llama": {**SIZES, "n_head": 4, "n_kv_head": 2, "d_ff": 24},
    "shakespeare_char": {**SIZES, "n_head": 2, "dropout": 0.1},
}
NETWORK = """
network N {
  input: INPUT
  layers: LAYERS
  loss: "LOSS"
  optimizer: OPTIMIZER
}
"""
# name: input, layers, loss, optimizer with what else the network says
OTHERS = {
    "one_kv_head": (
        "(80,)",
        "t = Embedding(50, 16) MultiHeadAttention(num_heads=4, num_kv_heads=1, causal=true, rope=100.0, dropout=0.2, "
        "scale=0.3) Dense(50, tied_to=t)",
        "sparse_categorical_crossentropy",
        "AdamW(learning_rate=0.01, weight_decay=0.1) lr_schedule: CosineDecay(warmup_steps=2, min_learning_rate=1e-4) "
        "train { steps: 5 gradient_clip: 1.0 gradient_accumulation: 4 }",
    ),
    "windowed": (
        "(80,)",
        "t = Embedding(50, 16) Residual { MultiHeadAttention(num_heads=2, causal=true, window=5, rope=100.0, "
        "qk_norm=true) } * 2 Rescaling(4.0) Dense(50, use_bias=false, tied_to=t)",
        "sparse_categorical_crossentropy",
        "SGD(learning_rate=0.1, momentum=0.9, nesterov=true, weight_decay=0.1) "
        "lr_schedule: Constant(warmup_steps=3) train { gradient_clip: 0.02 }",
    ),
    "ties": (
        "(9,)",
        "t = Embedding(12, 8) PositionalEmbedding(max_length=12, tied_to=t) d = Dense(8) "
        'Dense(8, tied_to=d, activation="relu") e = Dense(12) Dense(8, tied_to=e) Dense(20) Dense(8) '
        "Dense(12, tied_to=t)",
        "sparse_categorical_crossentropy",
        "Adam(learning_rate=0.01)",
    ),
    "two_inputs": (
        "{a: (5,), b: (7,)}",
        'x = Dense(a, 8) y = Dense(b, 8) Add(x, y) Dense(8, activation="relu_squared") Dense(1, activation="sigmoid")',
        "binary_crossentropy",
        "SGD(learning_rate=0.1)",
    ),
    "classes": ("(5,)", "Dense(4)", "categorical_crossentropy", "SGD(learning_rate=0.1, momentum=0.5)"),
    "numbers": ("(4, 8)", "Dense(4) Flatten() Dense(2)", "mean_squared_error", "SGD(learning_rate=0.1)"),
}


def shrunk(path: Path) -> str:
    """The text of a program whose sizes are numbers, those of GPT-2."""
    text = path.read_text().replace('tokenizer: "gpt2"', "").replace("dropout=0.1) * 12", "dropout=0.1) * 2")
    for old, new in (("50257", "50"), ("768", "16"), ("3072", "64"), ("num_heads=12", "num_heads=2"), ("1024", "80")):
        text = text.replace(old, new)
    return text


def programs() -> dict[str, Program]:
    found = {name: example(name, sets) for name, sets in SMALL.items()}
    text = shrunk(Path("tests/fixtures/tutorial/gpt_decoder.neural"))
    block = "    GptBlock(num_heads=2, d_model=16, d_ff=64, dropout=0.1)\n"
    assert text.count(block) == 12
    found["tutorial"] = compile_source(Source("tutorial.neural", text.replace(block * 11, block)))
    found["gpt_decoder"] = compile_source(Source("gpt.neural", shrunk(Path("examples/gpt_decoder.neural"))))
    for pooling in ("GlobalAveragePooling1D", "GlobalMaxPooling1D", "LastToken"):
        text = BIDIRECTIONAL.replace("POOLING", f"{pooling}()")
        found[pooling] = compile_source(Source("classifier.neural", text))
    for name, parts in OTHERS.items():
        text = NETWORK
        for hole, part in zip(("INPUT", "LAYERS", "LOSS", "OPTIMIZER"), parts, strict=True):
            text = text.replace(hole, part)
        found[name] = compile_source(Source(f"{name}.neural", text))
    return found


PROGRAMS = programs()


class Case(NamedTuple):
    program: Program
    job: Job
    keras: keras_peer.Peer
    torch: torch_peer.Peer


@pytest.fixture(scope="module", params=PROGRAMS)
def case(request) -> Case:
    program = PROGRAMS[request.param]
    job = make_job(program, None, 3)
    return Case(program, job, keras_peer.Peer(program, job.weights), torch_peer.Peer(program, job.weights))


def test_logits(case: Case) -> None:
    ours = case.keras.logits(case.job.inputs)
    assert np.abs(ours - case.torch.logits(case.job.inputs)).max() <= 2e-5
    assert np.abs(ours - interpret(optimize(case.program.graph), case.job.weights, *case.job.inputs)).max() <= 2e-5


def test_real_tokens_of_padded_rows(case: Case) -> None:
    mask = case.job.mask
    if mask is None:
        return  # nothing in the network heeds padding
    ours, theirs = (peer.logits(case.job.inputs, mask) for peer in (case.keras, case.torch))
    assert np.isfinite(ours).all()
    real = mask.astype(bool) if ours.ndim == 3 else slice(None)
    assert np.abs(ours - theirs)[real].max() <= 2e-5
    assert not np.array_equal(ours, case.keras.logits(case.job.inputs))


def test_gradients(case: Case) -> None:
    ours, theirs = (peer.gradients(case.job.inputs, case.job.targets) for peer in (case.keras, case.torch))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert np.linalg.norm(ours[name] - gradient) <= 1e-4 * np.linalg.norm(gradient), name


def test_five_steps(case: Case) -> None:
    ours, theirs = (peer.steps(case.job.inputs, case.job.targets, 5) for peer in (case.keras, case.torch))
    assert np.abs(np.array(ours) - theirs).max() <= 1e-5
    assert ours[4] < ours[0]


def test_greedy_tokens_and_logits_through_the_cache(case: Case) -> None:
    if not case.program.graph.cached:
        return  # it has no cache
    ids = case.job.inputs[0]
    assert np.abs(case.keras.cached(ids) - case.torch.logits([ids])).max() <= 2e-5
    ours, theirs = (peer.decode(ids[:, :8], 64) for peer in (case.keras, case.torch))
    assert ours.shape == (len(ids), 64)
    assert np.array_equal(ours, theirs)
