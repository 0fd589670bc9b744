"""`neural plan` and `neural visualize`, as a shell runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from neural.cli.plan import plan
from neural.cli.visualize import visualize
from neural.diagnostics.diagnostic import NeuralError

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command("plan")(plan)
APP.command("visualize")(visualize)

PLAN = """\
ShakespeareGpt: 804,096 parameters
  embedding       16,512   2.1 %
  non-embedding  787,584  97.9 %

  part      layer                  parameters   share  FLOPs/token  activations
  wte       Embedding                   8,320   1.0 %                  6.00 KiB
  wpe       PositionalEmbedding         8,192   1.0 %                   384 KiB
  dropout   Dropout
  blocks    GptBlock × 4              787,456  97.9 %       1.70 M     24.1 MiB
    ln_1      LayerNormalization          512   0.1 %                  1.52 MiB
    attn      CausalSelfAttention     262,144  32.6 %        655 K     6.05 MiB
    ln_2      LayerNormalization          512   0.1 %                  1.52 MiB
    c_fc      Dense                   262,144  32.6 %        524 K     12.0 MiB
    c_proj    Dense                   262,144  32.6 %        524 K
  ln_f      LayerNormalization            128   0.0 %                   390 KiB
  lm_head   Dense                      in wte               16.6 K

work for a token, 64 tokens of context
  forward   1.72 MFLOPs
  training  5.16 MFLOPs
  2,000 steps of 768 tokens: 7.93e+12 FLOPs

memory for training, batch 12 × 64 tokens, float32, on a GPU
  weights      3.07 MiB
  gradients    3.07 MiB
  optimizer    6.13 MiB  AdamW
  activations  24.9 MiB  kept for the backward pass
  logits        774 KiB  the loss and its gradient
  total        35.5 MiB  at the peak, the backward pass

memory for generating, batch 12 × 64 tokens, float32
  weights      3.07 MiB
  cache        3.00 MiB  keys and values at full context
  total        6.07 MiB
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_plan_for_people() -> None:
    assert run("plan", "examples/shakespeare_char.neural") == PLAN


def test_a_plan_for_tools() -> None:
    sets = ("n_layer=96", "d_model=12288", "n_head=96", "context=2048")
    made = json.loads(run("plan", "examples/gpt2.neural", "--json", *(a for s in sets for a in ("--set", s))))
    assert made["parameters"] == 174_604_259_328
    assert made["flops_per_token_training"] == 3 * made["flops_per_token"]
    for memory in made["memory"].values():
        total = memory.pop("total")
        memory.pop("cache_in_window", None)
        moments = memory.pop("moments", None)
        assert sum(memory.values()) == (total if moments is None else moments["the loss"])
        assert moments is None or max(moments.values()) == total
    parts = {"weights", "gradients", "optimizer", "copies", "activations", "logits", "head", "process", "fragments"}
    assert made["memory"]["training"].keys() == parts
    assert made["memory"]["generation"].keys() == {"weights", "cache"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--batch-size", "1"], "batch 1 × 64 tokens, float32, on a GPU"),
        (["--context", "16"], "batch 12 × 16 tokens, float32, on a GPU"),
        (["--devices", "cpu"], "batch 12 × 64 tokens, float32, on a CPU"),
        (["--devices", "2xcpu"], "batch 6 × 64 tokens, float32, on each of 2 devices"),
        (["--precision", "bfloat16"], "batch 12 × 64 tokens, bfloat16, on a GPU"),
    ],
)
def test_options_of_a_plan(options: list[str], expected: str) -> None:
    assert expected in run("plan", "examples/shakespeare_char.neural", *options)


def test_a_network_without_tokens_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "small.neural"
    path.write_text("network Small { input: (784,) layers: Dense(10) }")
    printed = run("plan", str(path))
    assert "work for a row\n  forward   15.7 KFLOPs" in printed
    assert "memory for inference" in printed


def test_a_drawing_is_written_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = str(Path("examples/llama.neural").resolve())
    monkeypatch.chdir(tmp_path)
    assert run("visualize", example, "--output", "a.SVG", "--set", "n_layer=2") == ""
    assert run("visualize", example) == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Llama.svg", "a.SVG"]
    assert all(ET.parse(p).getroot().tag.endswith("svg") for p in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.png", "model", "model.svg.gz", ".svg", "../."])
def test_a_drawing_is_svg_or_refused(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(APP, ["visualize", "examples/llama.neural", "--output", str(tmp_path / name)])
    assert isinstance(result.exception, NeuralError)
    (told,) = result.exception.diagnostics
    assert told.code == "N022"
    assert ".svg" in told.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["visualize", "--output", "{}/x.svg"]])
def test_no_framework_is_loaded(command: list[str], tmp_path: Path) -> None:
    name, *options = (c.format(tmp_path) for c in command)
    code = (
        "import sys, typer; from neural.cli import plan, visualize; app = typer.Typer()\n"
        "app.command('plan')(plan.plan); app.command('visualize')(visualize.visualize)\n"
        "app(standalone_mode=False)\n"
        "loaded = {'torch', 'numpy', 'tokenizers', 'matplotlib', 'safetensors'} & sys.modules.keys()\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    arguments = [sys.executable, "-c", code, name, "examples/gpt2.neural", *options]
    subprocess.run(arguments, check=True, capture_output=True)
