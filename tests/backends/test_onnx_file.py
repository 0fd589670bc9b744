"""The ONNX model as a file: what the checker says of it, its names, what is stored, and how it is written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from neural.backends.onnx import emit, file, fresh_weights, write
from neural.compiler import load
from neural.graph.graph import weights
from neural.graph.interpreter import initial_weights
from neural.graph.passes import optimize
from neural.quantization.choice import quantizable
from neural.quantization.quantize import round_all
from neural.quantization.rounding import round_to_nearest
from neural.verification.onnx_peer import Driver
from tests.parity.onnx_runs import run, session
from tests.parity.test_models import BIDIRECTIONAL, SMALL, WINDOWED, compile_source, example
from tests.parity.test_models import Source as Text

WIDE = {"d_model": 64, "vocab_size": 96}  # rows of whole blocks
IDS = np.array([[5, 3, 9, 40, 2]])


def network(name: str = "gpt2", **sets):
    return optimize(example(name, {**SMALL[name], **sets}).graph)


def rounded(graph, own: dict[str, np.ndarray], to: str | None):
    return emit(graph, own, round_all(graph.block, own, to) if to else {})


def programs():
    yield from ((name, network(name)) for name in SMALL)
    for name, text in (("windowed", WINDOWED), ("pooled", BIDIRECTIONAL.replace("POOLING", "LastToken()"))):
        yield name, optimize(compile_source(Text(f"{name}.neural", text)).graph)


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize(("name", "graph"), programs())
def test_the_checker_finds_nothing(name: str, graph, quantize: str | None) -> None:
    model = ir.to_proto(rounded(graph, initial_weights(graph, 0, np.float32), quantize))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert [(i.domain, i.version) for i in model.opset_import if not i.domain] == [("", 23)]
    assert (model.ir_version, model.producer_name) == (11, "neural-dsl")
    assert {o.name for o in inferred.graph.output} >= {"logits"}


def test_names_are_the_files() -> None:
    graph = network()
    model = emit(graph, initial_weights(graph, 0, np.float32))
    stored = {n: tuple(v.shape) for n, v in model.graph.initializers.items() if not n.startswith("constants/")}
    assert stored == {n: w.shape for n, w in weights(graph.block).items()}
    names = [n.name for n in model.graph]
    assert len(names) == len(set(names))
    assert {"wte/Gather", "blocks.0/attn/qkv/MatMul", "blocks.1/mlp/c_fc/Gelu", "lm_head/MatMul"} <= set(names)


def test_operators_of_opset_23_are_used() -> None:
    graph = network("llama")
    kinds = {n.op_type for n in emit(graph, initial_weights(graph, 0, np.float32)).graph}
    assert kinds >= {"Attention", "RMSNormalization", "RotaryEmbedding"}


@pytest.mark.parametrize(("quantize", "share"), [(None, 4), ("int8", 1.17), ("int4", 0.66)])
def test_a_tied_table_is_stored_once(quantize: str | None, share: float, tmp_path) -> None:
    graph = network(vocab_size=20000, d_model=64, n_layer=1)
    write(rounded(graph, fresh_weights(graph, 0), quantize), tmp_path / "m.onnx")
    others = 4 * 60000
    assert (tmp_path / "m.onnx").stat().st_size <= share * 20000 * 64 + others


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_a_quantised_model_is_near_and_decodes_as_it_reads(quantize: str) -> None:
    graph = network(**WIDE)
    own = initial_weights(graph, 1, np.float32)
    exact = Driver(session(emit(graph, own)), 1).read(IDS)
    opened = session(rounded(graph, own, quantize))
    whole, stepwise = Driver(opened, 1).read(IDS), Driver(opened, 1)
    steps = np.concatenate([stepwise.read(IDS[:, i : i + 1]) for i in range(IDS.shape[1])], axis=1)
    assert 0 < np.abs(whole - exact).max() / np.abs(exact).max() < {"int8": 0.05, "int4": 0.3}[quantize]
    np.testing.assert_allclose(steps, whole, atol=1e-4 * np.abs(whole).max())


WIDE_POOLED = BIDIRECTIONAL.replace("POOLING", "LastToken()").replace("(50, 16)", "(50, 64)")


@pytest.mark.parametrize(
    "graph",
    [network("llama", **WIDE, d_ff=64), optimize(compile_source(Text("pooled.neural", WIDE_POOLED)).graph)],
    ids=["llama", "pooled"],
)
def test_zero_points_in_fractions_of_a_step(graph) -> None:
    """Beside the network with the numbers that the integers stand for: what is left is the rounding of inputs."""
    own = initial_weights(graph, 1, np.float32)
    own |= {n: np.abs(w) for n, w in own.items() if w.ndim == 2}
    matrices = {n: round_to_nearest(own[n], 4, zeros=True) for n in quantizable(graph.block)}
    model = emit(graph, own, matrices)
    kinds = [n.op_type for n in model.graph]
    assert kinds.count("MatMulNBits") == kinds.count("ReduceSum") > 2
    theirs = run(emit(graph, own | {n: m.dequantized() for n, m in matrices.items()}), [IDS])
    ours, without = (
        run(m, [IDS]) for m in (model, emit(graph, own, {n: replace(m, zeros=None) for n, m in matrices.items()}))
    )
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max() < np.abs(without - theirs).max()


def test_rows_that_are_no_whole_blocks_stay_as_they_are() -> None:
    graph = network(d_model=40, vocab_size=96)
    own = initial_weights(graph, 1, np.float32)
    exact, same = (Driver(session(rounded(graph, own, q)), 1).read(IDS) for q in (None, "int8"))
    kinds = [n.op_type for n in rounded(graph, own, "int8").graph]
    assert kinds.count("MatMulNBits") == 2  # the second matrices of the MLPs, whose rows are 4 · 40
    assert np.abs(exact - same).max() / np.abs(exact).max() < 0.03


def test_fresh_weights_are_drawn_as_the_source_draws_them() -> None:
    graph = network(n_layer=8, d_model=32)
    own = fresh_weights(graph, 0)
    for name, weight in own.items():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "ln_" in name:
            assert (weight == 1).all(), name
        else:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 · 8) is 4
            assert abs(weight.std() / expected - 1) < 0.1, name
    assert all(np.array_equal(own[n], w) for n, w in fresh_weights(graph, 0).items())
    assert any(not np.array_equal(own[n], w) for n, w in fresh_weights(graph, 1).items())


def test_glorot() -> None:
    text = "network N { input: (300,) layers: Dense(500) Dense(10) }"
    own = fresh_weights(optimize(compile_source(Text("n.neural", text)).graph), 0)
    limit = (6 / 800) ** 0.5
    weight = next(iter(own.values()))
    assert limit * 0.99 < np.abs(weight).max() <= limit
    assert abs(weight.std() - limit / 3**0.5) < 0.01 * limit


def test_weights_beside_the_file(tmp_path, monkeypatch) -> None:
    graph = network()
    own = initial_weights(graph, 0, np.float32)
    model = emit(graph, own)
    expected = Driver(session(model), 1).read(IDS)
    monkeypatch.setattr(file, "INLINE_BYTES", 1000)
    (tmp_path / "m.onnx").write_bytes(b"an older one")
    write(model, tmp_path / "m.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 60000 < (tmp_path / "m.onnx.data").stat().st_size * 4
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    np.testing.assert_array_equal(Driver(session(str(tmp_path / "m.onnx")), 1).read(IDS), expected)
    write(model, tmp_path / "m.onnx")  # the model in memory is as it was, and may be written again


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    graph = network()
    model = emit(graph, initial_weights(graph, 0, np.float32))
    (tmp_path / "m.onnx").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(model, tmp_path / "m.onnx")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"old")]


def test_no_framework_is_imported() -> None:
    code = "import sys, neural.backends.onnx; print(sorted({'torch', 'keras', 'tensorflow', 'jax', 'onnxruntime'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_gpt2_has_its_size() -> None:
    graph = optimize(load("examples/gpt2.neural").graph)
    model = emit(graph, fresh_weights(graph, 0))
    numbers = sum(v.const_value.size for n, v in model.graph.initializers.items() if not n.startswith("constants/"))
    assert numbers == 124439808


def test_an_input_may_have_any_name() -> None:
    text = """network N { input: { logits: (4, 8), output: (4, 8) } layers: Attention(logits, output, output, num_heads=2) Dense(3)
      loss: "sparse_categorical_crossentropy" }"""
    graph = optimize(compile_source(Text("n.neural", text)).graph)
    model = emit(graph, fresh_weights(graph, 0))
    assert [i.name for i in model.graph.inputs] == ["logits", "output", "attention_mask"]
    assert [o.name for o in model.graph.outputs] == ["logits_"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("to", [None, "int8"])
def test_logits_of_the_last_tokens(to: str | None) -> None:
    """The input is there for who asks, and what is read is the rest of the model's answer."""
    graph = network()
    own = initial_weights(graph, 0, np.float32)
    quantized = round_all(graph.block, own, to) if to else {}
    whole, cut = (emit(graph, own, quantized, logits_to_keep=keep) for keep in (False, True))
    assert {i.name for i in cut.graph.inputs} - {i.name for i in whole.graph.inputs} == {"logits_to_keep"}
    expected = Driver(session(whole), 1).read(IDS)
    runner = session(cut)
    feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "position_ids": np.arange(IDS.shape[1])[None]}
    for given in runner.get_inputs():
        if given.name.startswith("past"):
            feeds[given.name] = np.zeros((1, given.shape[1], 0, given.shape[3]), np.float32)
    for kept in (1, 3, IDS.shape[1]):
        (logits,) = runner.run(["logits"], feeds | {"logits_to_keep": np.array([kept])})
        np.testing.assert_allclose(logits, expected[:, -kept:], rtol=1e-5, atol=1e-5)
