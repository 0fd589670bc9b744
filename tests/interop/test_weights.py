"""`weights="…"`: a run, a folder of Hugging Face, a GGUF file; on a network of its own names, and on a layer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from neural.cli.app import app
from neural.compiler import Program, load
from neural.diagnostics.diagnostic import NeuralError
from neural.interop.weights import open_weights, program_weights
from neural.training.loop import train
from neural.training.run import Run
from neural.training.setup import set_up
from neural.training.trained import open_trained
from tests.interop.families import CONTEXT, VOCABULARY, random_model
from tests.interop.gguf_models import small, written

# Other names and another order of statements than `neural import` writes: what counts is the structure.
OWN = f"""
define Mlp(d) {{ wide = Dense(4 * $d, activation="gelu_tanh") narrow = Dense($d) }}
define Layer(d, dropout) {{
  Residual {{ n1 = LayerNormalization(epsilon=1e-5) mha = MultiHeadAttention(num_heads=4, causal=true) Dropout($dropout) }}
  Residual {{ n2 = LayerNormalization(epsilon=1e-5) mlp = Mlp($d) Dropout($dropout) }}
}}
network Own {{
  input: ({CONTEXT},)
  weights: "WEIGHTS"
  layers:
    table = Embedding({VOCABULARY}, 32)
    places = PositionalEmbedding()
    stack = Layer(32, 0.1) * 3
    last = LayerNormalization(epsilon=1e-5)
    Dense({VOCABULARY}, use_bias=false, tied_to=table)
  loss: "sparse_categorical_crossentropy"
}}
"""


def own_program(folder: Path, weights: object) -> Program:
    (folder / "own.neural").write_text(OWN.replace("WEIGHTS", str(weights)))
    return load(folder / "own.neural")


def logits(program: Program, ids: np.ndarray) -> torch.Tensor:
    from neural.verification.torch_peer import Peer

    return torch.from_numpy(Peer(program, {n: np.array(w) for n, w in program_weights(program).items()}).logits([ids]))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory):
    model, folder = random_model("gpt2"), tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    return model, folder


def test_a_network_of_its_own_takes_a_model_of_others(gpt2, tmp_path: Path) -> None:
    model, source = gpt2
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 20))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits
    torch.testing.assert_close(logits(own_program(tmp_path, source), ids), expected, atol=2e-5, rtol=1e-5)


def test_and_one_of_a_gguf_file(tmp_path: Path) -> None:
    checkpoint = small("gpt2")
    path = written(checkpoint, tmp_path)
    d = checkpoint.decoder
    sizes = {
        "* 3": f"* {d.n_layer}",
        f"({CONTEXT},)": f"({d.context},)",
        f"({VOCABULARY}, 32)": f"({d.vocab_size}, 32)",
    }
    sizes |= {f"Dense({VOCABULARY}": f"Dense({d.vocab_size}", "num_heads=4": f"num_heads={d.n_head}"}
    sizes |= {"4 * $d": str(d.d_ff), "WEIGHTS": str(path)}
    text = OWN
    for old, new in sizes.items():
        text = text.replace(old, new)
    (tmp_path / "own.neural").write_text(text)
    found = program_weights(load(tmp_path / "own.neural"))
    assert np.array_equal(found["table.weight"], checkpoint.tensors["tokens.weight"])
    assert np.array_equal(found["stack.0.mlp.wide.weight"], checkpoint.tensors["blocks.0.up.weight"])
    fused = np.concatenate([checkpoint.tensors[f"blocks.0.{p}.bias"] for p in "qkv"])
    assert np.array_equal(found["stack.0.mha.qkv.bias"], fused)


def test_a_model_of_another_structure_does_not_fit(tmp_path: Path) -> None:
    random_model("llama").save_pretrained(tmp_path / "llama")
    program = own_program(tmp_path, tmp_path / "llama")
    with pytest.raises(NeuralError, match=r"N861: `positions\.weight` is missing: the model needs it with the shape"):
        program_weights(program)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 40)
    setup = set_up(Path("tests/training/tiny.neural"), sets={"steps": 20}, data=str(folder / "text.txt"))
    made = Run.create(folder / "run", setup.program, setup.tokenizer, setup.data)
    train(made)
    return made


def test_a_run_and_its_newest_whole_checkpoint(run: Run, tmp_path: Path) -> None:
    expected = run.load_model().state_dict()
    found = open_weights(str(run.path), run.program)
    assert found and all(np.array_equal(array, expected[name].numpy()) for name, array in found.items())
    shutil.copytree(run.path, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    with (newest / "model.safetensors").open("ab") as file:
        file.write(b"x")  # not the size that the mark says
    older = run.load_model("step-000010").state_dict()
    found = open_weights(str(tmp_path / "run"), run.program)
    assert all(np.array_equal(array, older[name].numpy()) for name, array in found.items())
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(NeuralError, match=r"N820: the run .* has no whole checkpoint yet"):
        open_weights(str(tmp_path / "run"), run.program)


def test_a_layer_takes_its_part_of_a_run(run: Run, tmp_path: Path) -> None:
    vocabulary = run.record.parameters["vocab_size"]
    path = tmp_path / "part.neural"
    path.write_text(
        f'network Part {{ input: (8,) layers: tokens = Embedding({vocabulary}, 16, weights="{run.path}") Dense(3) }}'
    )
    program = load(path)
    ((prefix, source),) = program.pretrained()
    found = open_weights(source, program, prefix)
    assert found.keys() == {"tokens.weight"}
    assert np.array_equal(found["tokens.weight"], run.load_model().tokens.weight.detach().numpy())
    with pytest.raises(NeuralError, match=r"N827: .* does not say where the weights of Part are"):
        program_weights(program)


def test_an_imported_model_generates(gpt2, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, source = gpt2
    app(["import", str(source), "--output", str(tmp_path / "model.neural")], standalone_mode=False)
    with pytest.raises(NeuralError, match=r"N809: .*model\.neural names no tokenizer"):
        open_trained(tmp_path / "model.neural")
    text = (tmp_path / "model.neural").read_text().replace("  layers:", '  tokenizer: "tokens.json"\n\n  layers:')
    (tmp_path / "model.neural").write_text(text)
    characters = "".join(map(chr, range(32, 32 + VOCABULARY - 10)))
    from neural.data.tokenizers import layout
    from neural.data.tokenizers.tokenizer import Tokenizer

    tokenizer = Tokenizer(layout.characters(set(characters), eot=False), "a test")
    tokenizer.save(tmp_path / "tokens.json")
    capsys.readouterr()
    arguments = ["--prompt", "abc", "--temperature", "0", "--max-new-tokens", "12"]
    app(["generate", str(tmp_path / "model.neural"), *arguments], standalone_mode=False)
    printed = capsys.readouterr().out.removesuffix("\n")
    ids = torch.tensor([tokenizer.encode("abc")])
    with torch.no_grad():
        for _ in range(12):  # ids that the tokenizer does not have are never drawn
            best = model(ids).logits[:, -1:, : tokenizer.vocab_size].argmax(-1)
            ids = torch.cat((ids, best), dim=1)
    assert printed == tokenizer.decode(ids[0].tolist())


CLASSIFIER = (
    OWN[: OWN.index("network")]
    + f"""
network Mood {{
  input: ({CONTEXT},)
  layers:
    table = Embedding({VOCABULARY}, 32, weights="WEIGHTS")
    PositionalEmbedding(weights="WEIGHTS")
    stack = Layer(32, 0.1, weights="WEIGHTS") * 3
    ending = LayerNormalization(epsilon=1e-5, weights="WEIGHTS")
    GlobalAveragePooling1D()
    answer = Dense(2)
  loss: "sparse_categorical_crossentropy"
}}
"""
)


def test_layers_of_a_classifier_take_their_parts_of_a_model_of_others(gpt2, tmp_path: Path) -> None:
    model, source = gpt2
    (tmp_path / "mood.neural").write_text(CLASSIFIER.replace("WEIGHTS", str(source)))
    program = load(tmp_path / "mood.neural")
    found = {}
    for prefix, where in program.pretrained():
        found |= open_weights(where, program, prefix)
    state = model.state_dict()
    assert np.array_equal(found["table.weight"], state["transformer.wte.weight"].numpy())
    assert np.array_equal(found["stack.2.mha.qkv.bias"], state["transformer.h.2.attn.c_attn.bias"].numpy())
    assert np.array_equal(found["ending.bias"], state["transformer.ln_f.bias"].numpy())
    assert "answer.weight" not in found
    assert len(found) == 2 + 3 * 12 + 2


def test_a_layer_behind_what_has_no_equal_is_refused(gpt2, tmp_path: Path) -> None:
    _, source = gpt2
    text = CLASSIFIER.replace("    stack", "    Dense(32)\n    stack").replace("WEIGHTS", str(source))
    (tmp_path / "mood.neural").write_text(text)
    program = load(tmp_path / "mood.neural")
    places = dict(program.pretrained())
    assert open_weights(places["table"], program, "table").keys() == {"table.weight"}
    with pytest.raises(NeuralError, match="N860: `dense` "):
        open_weights(places["ending"], program, "ending")
