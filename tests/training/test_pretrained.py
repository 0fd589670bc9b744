"""`weights="…"` on a layer: what a training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neural.backends.module import load_module
from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError
from neural.training.pretrained import load_pretrained

PROGRAM = """
define Block(d) {{ Residual {{ Dense($d) }} }}
network Net {{
  input: (8,)
  layers:
    tokens = Embedding(11, 4{table})
    blocks = Block(4{blocks}) * 2
    Dense(11, use_bias=false)
  loss: "sparse_categorical_crossentropy"
}}
"""


def make(folder: Path, table: str = "", blocks: str = ""):
    path = folder / "net.neural"
    path.write_text(PROGRAM.format(table=table and f', weights="{table}"', blocks=blocks and f', weights="{blocks}"'))
    program = load(path)
    torch.manual_seed(0)
    return program, load_module(program.source(), "net").Net()


def test_names_of_the_layer_and_of_the_model(tmp_path: Path) -> None:
    table = torch.randn(11, 4)
    state = {f"{i}.dense.{n}": torch.randn(s) for i in (0, 1) for n, s in (("weight", (4, 4)), ("bias", (4,)))}
    save_file({"tokens.weight": table}, tmp_path / "table.safetensors")
    save_file(state, tmp_path / "blocks.safetensors")
    program, model = make(tmp_path, "table.safetensors", "blocks.safetensors")
    before = model.dense.weight.clone()
    load_pretrained(model, program)
    assert torch.equal(model.tokens.weight, table)
    assert torch.equal(model.blocks[1].dense.bias, state["1.dense.bias"])
    assert torch.equal(model.dense.weight, before)


def test_the_text_of_a_run_finds_the_same_file(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(11, 4)}, tmp_path / "table.safetensors")
    program, _ = make(tmp_path, "table.safetensors")
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "program.neural").write_text(program.text())
    again = load(elsewhere / "program.neural")
    assert [p for _, p in again.pretrained()] == [str((tmp_path / "table.safetensors").resolve())]
    assert again.graph.block.nodes[0].name == "tokens"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("none.safetensors", None, "N820"),
        ("weights.bin", b"x", "N821"),
        ("broken.safetensors", b"\x00" * 20, "N823"),
        ("huge.safetensors", b"\xff" * 8 + b"{}", "N823"),
        ("other.safetensors", {"weight": torch.ones(3, 3)}, "N822"),
        ("missing.safetensors", {"bias": torch.ones(3)}, "N822"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, name: str, content, code: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        save_file(content, tmp_path / name)
    program, model = make(tmp_path, name)
    with pytest.raises(NeuralError) as error:
        load_pretrained(model, program)
    assert [d.code for d in error.value.diagnostics] == [code]


def test_weights_of_a_whole_network(tmp_path: Path) -> None:
    _, trained = make(tmp_path)
    state = {n: torch.randn_like(t) for n, t in trained.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    path = tmp_path / "net.neural"
    path.write_text(path.read_text().replace("  loss:", '  weights: "whole.safetensors"\n  loss:'))
    program = load(path)
    model = load_module(program.source(), "net").Net()
    load_pretrained(model, program)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "program.neural").write_text(program.text())
    assert load(tmp_path / "run" / "program.neural").pretrained()[0][1] == str(
        (tmp_path / "whole.safetensors").resolve()
    )
