"""Whole models in onnxruntime against the generated PyTorch: logits, the cache, padding, greedy text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neural.backends.module import load_module
from neural.backends.onnx import emit
from neural.compiler import compile_source
from neural.diagnostics.source import Source
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.verification.onnx_peer import Driver
from tests.parity.onnx_runs import decode, run, session
from tests.parity.test_models import BIDIRECTIONAL, SMALL, WINDOWED, example

CONTEXT = 80


def programs():
    for name, sets in SMALL.items():
        yield name, example(name, {**sets, "context": CONTEXT})
    sets = {"vocab_size": 50, "context": CONTEXT, "d_model": 16, "n_layer": 2, "n_head": 2}
    yield "gpt2-other-heads", example("gpt2", {**sets, "n_head": 4})
    yield "windowed", compile_source(Source("windowed.neural", WINDOWED.replace("(32,)", f"({CONTEXT},)")))
    for file, name in (
        ("tests/fixtures/tutorial/gpt_decoder.neural", "tutorial"),
        ("examples/gpt_decoder.neural", "gpt_decoder"),
    ):
        text = Path(file).read_text().replace('tokenizer: "gpt2"', "")
        for old, new in (
            ("50257", "50"),
            ("768", "16"),
            ("3072", "64"),
            ("num_heads=12", "num_heads=2"),
            ("1024", str(CONTEXT)),
        ):
            text = text.replace(old, new)
        yield name, compile_source(Source(f"{name}.neural", text))


@pytest.fixture(scope="module", params=programs(), ids=lambda p: p[0])
def case(request):
    """The PyTorch module and model, the network, and the ONNX session. All weights are random, so that texts differ."""
    name, program = request.param
    module = load_module(program.source(), name)
    model = getattr(module, program.name)().eval()
    network = optimize(program.graph)
    own = initial_weights(network, 3, np.float32)
    model.load_state_dict({n: torch.from_numpy(w) for n, w in own.items()}, strict=False)
    return module, model, network, session(emit(network, own))


def batch(length: int = 20) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 50, (3, length))


def expected(model, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    with torch.no_grad():
        given = {} if mask is None else {"attention_mask": torch.from_numpy(mask)}
        return model(torch.from_numpy(ids), **given).numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2e-5 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("cuts", [(20,), (1, 19), (19, 1), (5, 5, 10), (7, 1, 1, 11), (1,) * 20])
def test_logits_in_pieces(case, cuts: tuple[int, ...]) -> None:
    _, model, _, opened = case
    driver = Driver(opened, 3)
    pieces = np.split(batch(), np.cumsum(cuts)[:-1], axis=1)
    assert_close(np.concatenate([driver.read(p) for p in pieces], axis=1), expected(model, batch()))


def test_64_greedy_tokens_are_pytorchs(case) -> None:
    module, model, _, opened = case
    cache, driver, new, ours = module.KVCache(), Driver(opened, 3), torch.from_numpy(batch(8)), batch(8)
    with torch.no_grad():
        for _ in range(64):
            logits, found = model(new, past_key_values=cache)[0], driver.read(ours)
            assert_close(found, logits.numpy())
            new, ours = logits[:, -1:].argmax(-1), found[:, -1:].argmax(-1)
            np.testing.assert_array_equal(ours, new.numpy())


def test_padding_on_the_right(case) -> None:
    _, model, _, opened = case
    mask = (np.arange(20) < np.array([[20], [12], [1]])).astype(np.int64)
    ours, theirs = Driver(opened, 3).read(batch(), mask), expected(model, batch(), mask)
    assert_close(ours[mask == 1], theirs[mask == 1])


def test_padding_on_the_left_writes_what_each_row_writes_alone(case) -> None:
    """Hugging Face pads prompts on the left."""
    _, _, _, opened = case
    mask = (np.arange(12) >= np.array([[0], [5], [11]])).astype(np.int64)
    together = decode(Driver(opened, 3), batch(12), 16, mask)
    for row, start in enumerate((0, 5, 11)):
        alone = Driver(opened, 1).decode(batch(12)[row : row + 1, start:], 16)
        np.testing.assert_array_equal(together[row], alone[0])


def test_the_interface_is_hugging_faces(case) -> None:
    _, _, network, opened = case
    shapes = {i.name: i.shape for i in (*opened.get_inputs(), *opened.get_outputs())}
    total = "past_sequence_length + sequence_length"
    names = ["input_ids", "attention_mask", "position_ids", "past_key_values.0.key", "past_key_values.0.value"]
    assert list(shapes)[:5] == names
    heads = shapes[names[3]][1]
    assert shapes["input_ids"] == shapes["position_ids"] == ["batch_size", "sequence_length"]
    assert shapes["attention_mask"] == ["batch_size", total]
    assert shapes["logits"] == ["batch_size", "sequence_length", 50]
    for part in ("key", "value"):
        for i in (0, 1):
            _, _, _, width = shapes[f"past_key_values.{i}.{part}"]
            assert shapes[f"past_key_values.{i}.{part}"] == ["batch_size", heads, "past_sequence_length", width]
            assert shapes[f"present.{i}.{part}"] == ["batch_size", heads, total, width]
    assert network.cached


@pytest.mark.parametrize("pooling", ["GlobalAveragePooling1D()", "GlobalMaxPooling1D()", "LastToken()"])
def test_a_classifier(pooling: str) -> None:
    program = compile_source(Source("c.neural", BIDIRECTIONAL.replace("POOLING", pooling)))
    torch.manual_seed(0)
    model = load_module(program.source(), "c").Classifier().eval()
    network = optimize(program.graph)
    graph = emit(network, {n: p.detach().numpy() for n, p in model.named_parameters()})
    mask = (np.arange(20) < np.array([[5], [20], [12]])).astype(np.int64)
    assert_close(run(graph, [batch()]), expected(model, batch()))
    assert_close(run(graph, [batch()], mask), expected(model, batch(), mask))


def test_several_inputs_and_cross_attention() -> None:
    text = """network Pair { input: { left: (6, 8), right: (6, 8) }
      layers: a = Attention(left, right, right, num_heads=2) b = Concatenate(a, left) Flatten() Dense(3) }"""
    program = compile_source(Source("pair.neural", text))
    model = load_module(program.source(), "pair").Pair().eval()
    network = optimize(program.graph)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(3, 6, 8)).astype(np.float32) for _ in range(2)]
    graph = emit(network, {n: p.detach().numpy() for n, p in model.named_parameters()})
    assert [i.name for i in graph.graph.inputs] == ["left", "right", "attention_mask"]
    with torch.no_grad():
        assert_close(run(graph, inputs), model(*map(torch.from_numpy, inputs)).numpy())
