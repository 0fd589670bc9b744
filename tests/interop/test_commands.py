"""`neural import` and `neural export` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from neural.cli.app import app
from neural.compiler import load
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.graph.interpreter import initial_weights, interpret
from neural.graph.passes import optimize
from neural.interop import exports, huggingface, imports, sources
from neural.interop.tensor_files import write_file
from neural.training.loop import train
from neural.training.run import Run
from neural.training.setup import set_up
from tests.interop.families import random_model

SHAKESPEARE = "examples/shakespeare_char.neural"
SMALL = {"n_layer": 2, "d_model": 16, "n_head": 2, "context": 16, "steps": 3, "dropout": 0.1}
TEXT = "to be or not to be, that is the question. " * 40


def neural(*arguments: object) -> None:
    app([str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """nanoGPT's form, without biases, trained for three steps."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text(TEXT)
    setup = set_up(Path(SHAKESPEARE), sets=SMALL, data=str(folder / "text.txt"))
    made = Run.create(folder / "run", setup.program, setup.tokenizer, setup.data)
    train(made)
    return made


def test_a_run_becomes_a_directory_of_transformers(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    neural("export", run.path, "--format", "hf", "--output", out, "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["output"] == str(out)
    assert sorted(p.name for p in out.iterdir()) == said["files"]
    theirs, ours = AutoModelForCausalLM.from_pretrained(out).eval(), run.load_model()
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = run.tokenizer.encode("to be or not to ")
    assert tokenizer("to be or not to ").input_ids == ids
    assert tokenizer.decode(ids) == "to be or not to "
    with torch.no_grad():
        assert (ours(torch.tensor([ids])) - theirs(torch.tensor([ids])).logits).abs().max() <= 2e-5


def test_an_export_that_came_back_another_is_refused(run: Run, tmp_path: Path, monkeypatch) -> None:
    right = huggingface.write

    def wrong(checkpoint, folder: Path) -> None:
        right(checkpoint, folder)
        file = folder / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    monkeypatch.setattr(huggingface, "write", wrong)
    with pytest.raises(NeuralError, match=r"N868: the export as hf is not the model that was given: `.*` differs"):
        neural("export", run.path, "--format", "hf", "--output", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def program_with_weights(folder: Path, file: str, sets: dict[str, object], sections: str = "") -> Path:
    """An example with `param`s set, and random weights beside it."""
    program = load(file, sets)
    write_file(initial_weights(optimize(program.graph), 0, np.float32), folder / "weights.safetensors")
    path = folder / "model.neural"
    path.write_text(program.text().replace("  layers:", f'  weights: "weights.safetensors"\n{sections}  layers:'))
    return path


LLAMA = {"n_layer": 2, "d_model": 16, "n_head": 4, "n_kv_head": 2, "d_ff": 24, "vocab_size": 257, "context": 32}


def test_a_program_that_names_its_weights(tmp_path: Path) -> None:
    path = program_with_weights(tmp_path, "examples/llama.neural", LLAMA, '  tokenizer: "byte"\n')
    neural("export", path, "--format", "hf", "--output", tmp_path / "out")
    program = load(path)
    ids = np.array([[1, 2, 3, 200, 256]])
    oracle = interpret(optimize(program.graph), initial_weights(optimize(program.graph), 0), ids)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found = model(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(found - oracle).max() <= 2e-5 * max(1.0, np.abs(oracle).max())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("é!").input_ids == list("é!".encode())
    assert tokenizer.eos_token_id == 256


def test_an_import_of_an_export_is_the_program_again(run: Run, tmp_path: Path) -> None:
    neural("export", run.path, "--format", "hf", "--output", tmp_path / "out")
    neural("import", tmp_path / "out", "--output", tmp_path / "model.neural")
    neural("export", tmp_path / "model.neural", "--format", "hf", "--output", tmp_path / "again")
    first, second = (sources.read(str(tmp_path / name)) for name in ("out", "again"))
    assert first.decoder == second.decoder
    assert exports.compare(first, second) is None
    assert first.vocabulary == second.vocabulary


REFUSED = [
    ("hff", SHAKESPEARE, "N873", "no format `hff`"),
    ("hf", "nothing", "N001", ""),
    ("hf", "tests", "N850", "not a run directory"),
    ("hf", SHAKESPEARE, "N827", ""),
    ("hf", "tests/training/tiny.neural", "N860", "each block is attention, then MLP"),
]


@pytest.mark.parametrize(("form", "source", "code", "part"), REFUSED)
def test_what_cannot_be_exported(form: str, source: str, code: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(NeuralError) as error:
        neural("export", source, "--format", form, "--output", tmp_path / "out")
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.code, part in diagnostic.title) == (code, True), diagnostic.title
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(NeuralError, match="N871"):
        neural("export", run.path, "--format", "hf", "--output", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_decoder_of_no_family_is_told_what_hinders_it(tmp_path: Path) -> None:
    text = Path("tests/fixtures/tutorial/gpt_decoder.neural").read_text()
    small = (
        text.replace("768", "16").replace("3072", "64").replace("50257", "97").replace("num_heads=12", "num_heads=2")
    )
    (tmp_path / "gpt.neural").write_text(small.replace("layers:", 'weights: "w.safetensors"\n  layers:'))
    graph = optimize(load(tmp_path / "gpt.neural").graph)
    write_file(initial_weights(graph, 0, np.float32), tmp_path / "w.safetensors")
    with pytest.raises(NeuralError, match="N867") as error:
        neural("export", tmp_path / "gpt.neural", "--format", "hf", "--output", tmp_path / "out")
    assert error.value.diagnostics[0].notes[0] == "gpt2: head_bias is True, and it has False"
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    load_tokenizer("byte").save(tmp_path / "tokenizer.json")
    sets = LLAMA | {"vocab_size": 200}
    path = program_with_weights(tmp_path, "examples/llama.neural", sets, '  tokenizer: "tokenizer.json"\n')
    with pytest.raises(NeuralError, match=r"N866: the tokenizer's token '<.endoftext.>' has the id 256"):
        neural("export", path, "--format", "hf", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_import_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    random_model("qwen3").save_pretrained(tmp_path / "there")
    neural("import", tmp_path / "there", "--output", tmp_path / "small.neural", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["network"], said["family"]) == ("Qwen3", "qwen3")
    assert said["parameters"] == random_model("qwen3").num_parameters()
    assert [Path(f).name for f in said["files"]] == ["small.safetensors", "small.neural"]
    assert load(tmp_path / "small.neural").settings.weights == "small.safetensors"


def test_a_file_that_came_while_the_model_was_read_stays(tmp_path: Path) -> None:
    """The command looks before it reads; the writer looks again."""
    random_model("gpt2").save_pretrained(tmp_path / "there")
    checkpoint = huggingface.read(tmp_path / "there")
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(NeuralError, match="N871"):
        imports.write_program(checkpoint, tmp_path / "model.neural", "there")
    assert (tmp_path / "model.safetensors").read_text() == "mine"
    assert not (tmp_path / "model.neural").exists()
