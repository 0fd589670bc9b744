"""`neural quantize` and what other commands do with the run that it makes."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from neural.backends.onnx.quantization import from_blocks
from neural.cli import main
from neural.cli.quantize import parse_percentage
from neural.compiler import load
from neural.cpp.building import compiler
from neural.data.corpus import open_corpus
from neural.data.shards import write_shards
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.generation import quantize as work
from neural.graph.graph import weights
from neural.graph.passes import optimize
from neural.interop.tensor_files import read_tensors, write_file
from neural.quantization.choice import LARGEST, _room, forms, quantizable, widths
from neural.quantization.gptq import gptq
from neural.quantization.matrix import size
from neural.training.loop import train
from neural.training.quantized import WEIGHTS
from neural.training.run import Run
from neural.training.setup import set_up
from neural.training.trained import open_trained
from tests.generation.test_cli import CLASSIFIER, Printed

SIZES = {"n_layer": 2, "d_model": 32, "n_head": 2, "context": 32, "steps": 60}
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "sings",
    "of",
    "liquor",
    "jugs",
    "and",
    "zephyrs",
    "while",
    "we",
    "box",
]


def text(count: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count)) + "\n"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first`, a run; `model.neural`, a program with its weights; texts."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "text.txt").write_text(text(1500, 0))
    (folder / "other.txt").write_text(text(1500, 1))
    setup = set_up(Path("examples/shakespeare_char.neural"), sets=SIZES, data=str(folder / "text.txt"))
    run = Run.create(folder / "first", setup.program, setup.tokenizer, setup.data)
    train(run)
    run.tokenizer.save(folder / "tokenizer.json")
    shutil.copy(run.open_checkpoint().path / "model.safetensors", folder / "model.safetensors")
    program = (folder / "first" / "program.neural").read_text()
    named = 'input: ($context,)\n  weights: "model.safetensors"\n  '
    (folder / "model.neural").write_text(
        re.sub(r"tokenizer: .*", 'tokenizer: "tokenizer.json"', program).replace("input: ($context,)", named.strip())
    )
    return folder


@pytest.fixture(scope="module")
def quantized(folder: Path) -> dict[str, Path]:
    """By width."""
    for to in ("int8", "int4"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                sys, "argv", ["neural", "quantize", str(folder / "first"), "--to", to, "--output", str(folder / to)]
            )
            with pytest.raises(SystemExit) as exit_:
                main()
        assert exit_.value.code == 0
    return {to: folder / to for to in ("int8", "int4")}


@pytest.fixture
def neural(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: str | Path) -> Printed:
        monkeypatch.setattr(sys, "argv", ["neural", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return Printed(exit_.value.code, *capfd.readouterr())

    return call


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_the_run_holds_integers_and_says_what_it_is(folder: Path, quantized: dict[str, Path], to: str) -> None:
    run = Run.open(quantized[to])
    made, before = run.record.quantization, read_tensors(folder / "model.safetensors")
    assert (made.to, made.step, made.source, made.method) == (to, 60, str(folder / "first"), "gptq")
    assert made.perplexity <= made.perplexity_before * (1 + made.budget)
    assert made.size == sum(stored.part().nbytes for stored in read_tensors(run.path / WEIGHTS).stored.values())
    errors = {error["name"]: error for error in json.loads((run.path / "quantization.json").read_text())}
    tensors = run.open_weights()
    assert set(tensors) == set(before)
    assert set(tensors.quantized()) == set(errors) == set(quantizable(optimize(run.program.graph).block))
    for name in before:
        change = np.linalg.norm(tensors[name] - before[name]) / np.linalg.norm(before[name])
        assert change == pytest.approx(errors[name]["weight"], rel=1e-3) if name in errors else change == 0
    assert {error["bits"] for error in errors.values()} == {int(to[3:])}


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_it_is_opened_like_others(quantized: dict[str, Path], to: str) -> None:
    trained = open_trained(quantized[to])
    held = dict(trained.model.named_parameters())
    assert set(trained.weights) == set(held)
    for name, array in trained.weights.items():
        assert np.array_equal(held[name].detach().numpy(), array)
        if name in trained.quantized:
            assert np.array_equal(trained.quantized[name].dequantized(), array)
    assert trained.model.lm_head.weight is trained.model.wte.weight


def test_eval_gives_the_perplexity_of_its_weights(folder: Path, quantized: dict[str, Path], neural) -> None:
    """By `neural eval`, which reads text in another way than `neural quantize`: near, and by the same little worse."""
    before, after = (
        json.loads(neural("eval", run, "--data", folder / "other.txt", "--json").out)["perplexity"]
        for run in (folder / "first", quantized["int4"])
    )
    made = Run.open(quantized["int4"]).record.quantization
    assert before == pytest.approx(made.perplexity_before, rel=0.1)
    assert after / before == pytest.approx(made.perplexity / made.perplexity_before, rel=0.01)


def test_generate_and_runs(folder: Path, quantized: dict[str, Path], neural) -> None:
    written = neural("generate", quantized["int8"], "--prompt", "the ", "--max-new-tokens", 20, "--temperature", 0)
    assert written.code == 0 and written.out.startswith("the ") and len(written.out) > 20
    listed = json.loads(neural("runs", folder, "--json").out)["runs"]
    row = next(r for r in listed if r["path"] == str(quantized["int8"]))
    assert (row["state"], row["step"], row["resumes_from"], row["problem"]) == ("quantized", 60, None, None)


def test_verify_and_export(folder: Path, quantized: dict[str, Path], neural, tmp_path: Path) -> None:
    run = quantized["int4"]
    found = neural("verify", run, "--backend", "numpy", "--json")
    assert found.code == 0, found.out
    written = neural("export", run, "--format", "hf", "--output", tmp_path / "hf")
    assert written.code == 0 and "hf has no place for integers" in written.err
    assert neural("verify", "--export", tmp_path / "hf").code == 0


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_onnx_holds_the_same_integers(quantized: dict[str, Path], neural, tmp_path: Path, to: str) -> None:
    assert neural("export", quantized[to], "--format", "onnx", "--output", tmp_path / "onnx").code == 0
    assert neural("verify", "--export", tmp_path / "onnx").code == 0
    held = ir.load(tmp_path / "onnx" / "model.onnx").graph.initializers
    for name, matrix in open_trained(quantized[to]).quantized.items():
        values, scales = (held[f"{name}_{part}"].const_value.numpy() for part in ("quantized", "scale"))
        assert np.array_equal(from_blocks(values, scales, matrix.bits), matrix.dequantized())
    assert not {name for name in held if name in open_trained(quantized[to]).quantized}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "native"])
def test_other_engines(quantized: dict[str, Path], folder: Path, neural, engine: str) -> None:
    if engine == "native" and compiler() is None:
        pytest.skip("no C++ compiler")
    if engine != "native":
        pytest.importorskip(engine)
    found = {}
    for name in (engine, "torch"):
        told = neural("eval", quantized["int8"], "--data", folder / "other.txt", "--engine", name, "--json")
        assert told.code == 0, told.err
        found[name] = json.loads(told.out)["perplexity"]
    assert 0 < abs(found[engine] / found["torch"] - 1) < 0.01  # they round what the products read to 8 bits, too
    refused = neural("generate", quantized["int8"], "--prompt", "a", "--engine", engine, "--quantize", "int4")
    assert refused.code == 2 and "N999" in refused.err


def test_a_program_with_weights(folder: Path, neural, tmp_path: Path) -> None:
    """Is measured on a fifth of the text that it is calibrated on."""
    arguments = ["--to", "int4", "--calibrate", folder / "text.txt", "--output", tmp_path / "out", "--json"]
    printed = neural("quantize", folder / "model.neural", *arguments)
    assert printed.code == 0, printed.err
    said, made = json.loads(printed.out), Run.open(tmp_path / "out").record.quantization
    assert said["run"] == str(tmp_path / "out") and said["perplexity"] == made.perplexity
    assert (made.step, made.source) == (None, str(folder / "model.neural"))
    assert made.calibration.sha256 != made.measured_on.sha256
    ids = load_tokenizer(str(folder / "tokenizer.json")).encode(text(1500, 0))
    assert made.measured_on.tokens <= len(ids) // 5 < 2 * made.measured_on.tokens
    assert open_trained(tmp_path / "out").model(torch.tensor([ids[:8]]))[0] is not None


def test_without_text_to_calibrate_on_it_is_rounded(folder: Path, neural, tmp_path: Path) -> None:
    arguments = ["--to", "int4", "--data", folder / "other.txt", "--output", tmp_path / "out", "--json"]
    printed = neural("quantize", folder / "model.neural", *arguments)
    assert printed.code == 0, printed.err
    assert {m["method"] for m in json.loads(printed.out)["matrices"]} == {"rounding"}
    assert Run.open(tmp_path / "out").record.quantization.calibration is None


def test_shards_of_the_same_tokenizer_are_text(folder: Path, neural, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
    write_shards(open_corpus(folder / "other.txt"), tokenizer, tmp_path / "shards", progress=False)
    arguments = ["--to", "int4", "--data", tmp_path / "shards", "--output", tmp_path / "out"]
    assert neural("quantize", folder / "first", *arguments).code == 0


def test_an_older_checkpoint(folder: Path, neural, tmp_path: Path) -> None:
    name = Run.open(folder / "first").checkpoints.path(60).name
    arguments = ["--to", "int8", "--output", tmp_path / "out", "--checkpoint", name]
    assert neural("quantize", folder / "first", *arguments).code == 0


def test_over_the_budget_nothing_is_written(folder: Path, neural, tmp_path: Path) -> None:
    def coarse(*arguments, **more):
        made = gptq(*arguments, **more)
        made.scales[:] *= 2
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neural.quantization.quantize.gptq", coarse)
        printed = neural("quantize", folder / "first", "--to", "int4", "--output", tmp_path / "out", "--json")
    assert printed.code == 3
    assert "N990" in printed.err and "5 % is allowed" in printed.err
    said = json.loads(printed.out)
    assert said["run"] is None and said["increase"] > said["allowed"] == 0.05
    assert list(tmp_path.iterdir()) == []


MODELS = [
    pytest.param("shakespeare_char", {}, True, id="a small vocabulary"),
    pytest.param("gpt2", {}, False, id="GPT-2: its table is a third of it"),
    pytest.param("gpt2", {"d_model": 1600, "n_layer": 48, "n_head": 25}, True, id="GPT-2 XL"),
    pytest.param("llama", {}, True, id="Llama: a head of its own"),
]


@pytest.mark.parametrize(("example", "sets", "wide"), MODELS)
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_sizes(example: str, sets: dict[str, int], wide: bool, to: str) -> None:
    """Tables of an int4 model are int8 where there is room."""
    block = optimize(load(f"examples/{example}.neural", sets).graph).block
    bits, chosen = widths(block, to), quantizable(block)
    assert {bits[name] for name, matrix in chosen.items() if not matrix.table} == {int(to[3:])}
    assert {bits[name] for name, matrix in chosen.items() if matrix.table} == {8 if wide or to == "int8" else 4}
    sizes = {name: 4 * math.prod(weight.shape) for name, weight in weights(block).items()}
    before = sum(sizes.values())
    sizes |= {name: size(matrix.shape, bits[name]) for name, matrix in chosen.items()}
    assert sum(sizes.values()) <= LARGEST[to] * before


def test_zero_points_are_for_matrices_that_need_them() -> None:
    """And as many as there is room for, those first that win most. Tables and int8 have none."""
    block = optimize(load("examples/shakespeare_char.neural", {}).graph).block
    rng, chosen = np.random.default_rng(0), quantizable(block)
    numbers = {name: rng.standard_normal(matrix.shape, np.float32) for name, matrix in chosen.items()}
    table = next(name for name, matrix in chosen.items() if matrix.table)
    assert not any(form.zeros for form in forms(block, numbers, "int4").values())
    leaning = {name: np.maximum(w, w / 3) for name, w in numbers.items()}
    assert {name for name, form in forms(block, leaning, "int4").items() if not form.zeros} == {table}
    assert not any(form.zeros for form in forms(block, leaning, "int8").values())
    first = list(chosen)[1]
    with pytest.MonkeyPatch.context() as patch:  # room for one
        free = _room(block, widths(block, "int4"), "int4")
        added = size(chosen[first].shape, 4, zeros=True) - size(chosen[first].shape, 4)
        floats = 4 * sum(math.prod(weight.shape) for weight in weights(block).values())
        patch.setitem(LARGEST, "int4", LARGEST["int4"] - (free - 1.2 * added) / floats)
        found = forms(block, leaning | {first: np.abs(numbers[first])}, "int4")
    assert [name for name, form in found.items() if form.zeros] == [first]


@pytest.mark.parametrize("budget", [2**20, 1], ids=["at once", "one after another"])
def test_second_moments_are_those_of_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    model = open_trained(folder / "first").model
    ids = torch.arange(24).reshape(2, 12) % 20
    read: list[torch.Tensor] = []
    model.blocks[1].attn.qkv.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    uses = work.products(model)
    assert uses["wte.weight"] == [model.lm_head]
    found = work.second_moments(model, uses, [ids])["blocks.1.attn.qkv.weight"]
    x = read[0].flatten(0, 1).double()
    assert torch.allclose(found.double(), x.T @ x / 24, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(work, "MOMENT_BYTES", budget)
    chosen = quantizable(optimize(open_trained(folder / "first").program.graph).block)
    turns = list(work._in_turn(chosen, uses))
    assert [name for names in turns for name in names] == list(chosen)
    assert len(turns) == (1 if budget > 1 else 9)


PERCENTAGES = [("1%", 0.01), ("0.5 %", 0.005), (" 12.25% ", 0.1225), (".1%", 0.001), ("0%", 0.0)]


@pytest.mark.parametrize(("given", "meant"), PERCENTAGES)
def test_percentages(given: str, meant: float) -> None:
    assert math.isclose(parse_percentage(given), meant)


@pytest.mark.parametrize("given", ["1", "0.01", "-1%", "%", "one%", "nan%", "inf%", "1e3%", "1%%", ""])
def test_what_is_no_percentage(given: str) -> None:
    with pytest.raises(NeuralError) as refused:
        parse_percentage(given)
    assert refused.value.diagnostics[0].code == "N993"


REFUSED = [
    pytest.param(["first", "--to", "int2"], "N997", id="another width"),
    pytest.param(["first", "--max-perplexity-increase", "0.01"], "N993", id="no percentage"),
    pytest.param(["int8"], "N999", id="quantised already"),
    pytest.param(["first", "--output", "int4"], "N851", id="the output is a run"),
    pytest.param(["first", "--output", "text.txt/x"], "N851", id="the output is below a file"),
    pytest.param(["first", "--checkpoint", "step-000007"], "N857", id="no such checkpoint"),
    pytest.param(["absent"], "N850", id="no run"),
    pytest.param(["model.neural"], "N998", id="nothing to measure on"),
    pytest.param(["model.neural", "--calibrate", "short.txt"], "N992", id="short text"),
    pytest.param(["first", "--data", "short.txt"], "N992", id="short text to measure on"),
    pytest.param(["first", "--calibrate", "empty.txt"], "N702", id="empty text"),
    pytest.param(["first", "--calibrate", "absent.txt"], "N701", id="no text"),
    pytest.param(["first", "--calibrate", "greek.txt"], "N756", id="letters that the tokenizer lacks"),
    pytest.param(["first", "--calibrate", "shards"], "N853", id="shards of another tokenizer"),
    pytest.param(["classifier.neural"], "N915", id="a classifier"),
    pytest.param(["nan.neural", "--data", "other.txt"], "N996", id="weights that are not finite"),
]


@pytest.fixture(scope="module")
def broken(folder: Path) -> None:
    (folder / "short.txt").write_text("the quick brown fox")
    (folder / "empty.txt").write_text("")
    (folder / "greek.txt").write_text("ἄνδρα μοι ἔννεπε, μοῦσα " * 40)
    (folder / "classifier.neural").write_text(CLASSIFIER)
    write_shards(open_corpus(folder / "text.txt"), load_tokenizer("byte"), folder / "shards", progress=False)
    tensors = {name: np.array(array) for name, array in read_tensors(folder / "model.safetensors").items()}
    tensors["blocks.1.c_fc.weight"][3, 4] = np.nan
    write_file(tensors, folder / "nan.safetensors")
    (folder / "nan.neural").write_text((folder / "model.neural").read_text().replace("model.safe", "nan.safe"))


@pytest.mark.parametrize(("arguments", "code"), REFUSED)
def test_bad_input(
    folder: Path, quantized, broken, neural, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    given = {"--to": "int4", "--output": "new"}
    missing = [word for option, value in given.items() if option not in arguments for word in (option, value)]
    printed = neural("quantize", *arguments, *missing)
    assert printed.code == 2, printed.err
    assert f"error[{code}]" in printed.err
    assert sorted(folder.rglob("*")) == before


OF_QUANTIZED = [
    pytest.param(["generate", "int8", "--prompt", "a", "--checkpoint", "step-000060"], "N991", id="a checkpoint of it"),
    pytest.param(["train", "--resume", "int8"], "N995", id="training it"),
    pytest.param(["generate", "damaged", "--prompt", "a"], "N994", id="a bit is another"),
    pytest.param(["generate", "cut", "--prompt", "a"], "N994", id="its weights are missing"),
    pytest.param(["generate", "unmarked", "--prompt", "a"], "N994", id="it is not complete"),
    pytest.param(["export", "wrong", "--format", "hf", "--output", "x"], "N994", id="scales that do not fit"),
]


@pytest.mark.parametrize(("arguments", "code"), OF_QUANTIZED)
def test_what_a_quantised_run_cannot(
    quantized: dict[str, Path], neural, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("int8", "damaged", "cut", "unmarked", "wrong"):
        shutil.copytree(quantized["int8"], name)
    damaged = bytearray(Path("damaged", WEIGHTS).read_bytes())
    damaged[-1] ^= 1
    Path("damaged", WEIGHTS).write_bytes(damaged)
    Path("cut", WEIGHTS).unlink()
    Path("unmarked", "COMPLETE").unlink()
    tensors = {name: stored.part() for name, stored in read_tensors(Path("int8", WEIGHTS)).stored.items()}
    write_file({**tensors, "wte.weight.scales": np.ones(3, np.float32)}, Path("wrong", WEIGHTS))
    printed = neural(*arguments)
    assert printed.code == 2 and f"error[{code}]" in printed.err, printed.err


def test_ctrl_c_and_a_full_disk_leave_nothing(folder: Path, neural, tmp_path: Path) -> None:
    for error, code, said in (
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "no space", "x"), 2, "disk is full"),
    ):

        def fail(*_, error=error) -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("neural.training.quantized.write_file", fail)
            printed = neural("quantize", folder / "first", "--to", "int8", "--output", tmp_path / "out")
        assert printed.code == code and said in printed.err
        assert list(tmp_path.iterdir()) == []


def test_a_signal_in_the_middle(folder: Path, tmp_path: Path) -> None:
    """Of the calibration, which is made to take long: all of the work is a fifth of a second."""
    slow = "import time, neural.generation.quantize as q; q.second_moments = lambda *_: time.sleep(60)"
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's `&` has it ignored
    command = [sys.executable, "-c", f"{slow}; {heard}; from neural.cli import main; main()"]
    command += ["quantize", str(folder / "first")]
    process = subprocess.Popen(
        [*command, "--to", "int8", "--output", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    assert any(line.startswith("perplexity before") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == []
