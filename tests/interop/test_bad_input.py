"""Directories that are damaged, lie, or ask for too much: one clear message, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neural.cli.app import app
from neural.diagnostics.diagnostic import NeuralError
from tests.forked.command import neural
from tests.interop.families import random_model

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    random_model("llama").save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return folder


Harm = Callable[[Path], object]


def config(**changes: object) -> Harm:
    """Fields of config.json; `...` takes one away."""

    def harm(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))

    return harm


def text(name: str, content: str) -> Harm:
    return lambda folder: (folder / name).write_text(content)


def cut(name: str, keep: int) -> Harm:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def tensors(**changes: torch.Tensor | None) -> Harm:
    """Tensors by their name with `_` for `.` between layers; None takes one away."""

    def harm(folder: Path) -> None:
        state = load_file(folder / WEIGHTS) | {name: t for name, t in changes.items() if t is not None}
        save_file({n: t for n, t in state.items() if n not in changes or changes[n] is not None}, folder / WEIGHTS)

    return harm


def header(change: Callable[[dict], object], length: int | None = None) -> Harm:
    """The header of the weights, changed; `length`: what is written in front of it."""

    def harm(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        values = json.loads(data[8 : 8 + size])
        change(values)
        written = json.dumps(values).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length or len(written)) + written + data[8 + size :])

    return harm


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def shards(folder: Path, **places: str) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))


def tokenizer(**vocabulary: int) -> str:
    return json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": []})


DOWN = "model.layers.1.mlp.down_proj.weight"
ROWS: dict[str, tuple[Harm, str, str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "N863", "has no config.json"),
    "cut configuration": (cut("config.json", 40), "N863", "is not JSON"),
    "configuration of bytes": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"), "N863", "not UTF-8"),
    "configuration as a list": (text("config.json", "[1]"), "N863", "holds a list"),
    "deep configuration": (text("config.json", '{"a":' + "[" * 100_000), "N863", "beyond all bounds"),
    "a number of 5000 digits": (text("config.json", '{"vocab_size": ' + "9" * 5000 + "}"), "N863", "beyond all bounds"),
    "an empty configuration": (text("config.json", "{}"), "N864", "lacks `model_type`"),
    "no family": (config(model_type=7), "N864", "`model_type`"),
    "unknown family": (config(model_type="mamba"), "N862", "family `mamba`"),
    "near family": (config(model_type="lama"), "N862", "family `lama`"),
    "missing size": (config(hidden_size=...), "N864", "lacks `hidden_size`"),
    "size as text": (config(hidden_size="32"), "N864", '`hidden_size` in'),
    "size as float": (config(hidden_size=32.0), "N864", "is 32.0"),
    "size as truth": (config(num_hidden_layers=True), "N864", "is true"),
    "negative size": (config(vocab_size=-1), "N864", "is -1"),
    "huge size": (config(vocab_size=10**30), "N864", "is 1000000000"),
    "huge layers": (config(num_hidden_layers=10**9), "N864", "from 1 to 4,096"),
    "heads that do not divide": (config(num_attention_heads=5, head_dim=...), "N864", "a divisor of hidden_size, 32"),
    "groups that do not divide": (config(num_key_value_heads=3), "N864", "a divisor of num_attention_heads"),
    "odd heads": (config(head_dim=7), "N865", "even width"),
    "epsilon of zero": (config(rms_norm_eps=0), "N864", "a number above 0"),
    "epsilon that is none": (text("config.json", '{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "rms_norm_eps": NaN}'), "N864", "`rms_norm_eps`"),
    "flag as text": (config(tie_word_embeddings="yes"), "N864", "true or false"),
    "unknown activation": (config(hidden_act="quick_gelu"), "N865", "`hidden_act: quick_gelu`"),
    "yarn": (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}), "N865", "default, linear and llama3"),
    "dynamic, old spelling": (config(rope_parameters=..., rope_scaling={"type": "dynamic", "factor": 2.0}), "N865", "`rope_scaling:"),
    "no factor": (config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4}), "N864", "lacks `factor`"),
    "rope as text": (config(rope_parameters="default"), "N864", "an object"),
    "rope by layers": (config(rope_parameters={"full_attention": {"rope_type": "default"}}), "N865", "from layer to layer"),
    "partial rotary": (config(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}), "N865", "part of each head"),
    "partial rotary, old": (config(partial_rotary_factor=0.25), "N865", "`partial_rotary_factor"),
    "quantised": (config(quantization_config={"bits": 4}), "N865", "`quantization_config"),
    "experts": (config(num_local_experts=8), "N865", "`num_local_experts"),
    "capped logits": (config(final_logit_softcapping=30.0), "N865", "`final_logit_softcapping"),
    "windows in some layers": (config(model_type="qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1), "N865", "only some of the layers"),
    "windows by type": (config(model_type="qwen2", use_sliding_window=True, sliding_window=4, layer_types=["full_attention", "sliding_attention", "full_attention"]), "N865", "only some of the layers"),
    "epsilon of queries and keys": (config(model_type="qwen3", rms_norm_eps=1e-5), "N865", "1e-06"),
    "no groups in mistral": (config(model_type="mistral", num_key_value_heads=...), "N864", "lacks `num_key_value_heads`"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "N820", "has no model.safetensors"),
    "pickle only": (pickle_only, "N826", "pytorch_model.bin, a pickle"),
    "cut weights": (cut(WEIGHTS, 5000), "N823", "not a whole safetensors file"),
    "weights of 3 bytes": (cut(WEIGHTS, 3), "N823", "not a whole safetensors file"),
    "empty weights": (cut(WEIGHTS, 0), "N823", "not a whole safetensors file"),
    "a huge header": (header(lambda h: None, 1 << 62), "N823", "not a whole safetensors file"),
    "a header past the end": (header(lambda h: None, 10**7), "N823", "not a whole safetensors file"),
    "offsets past the end": (header(lambda h: h[DOWN].update(data_offsets=[0, 1 << 40])), "N823", "not a whole"),
    "a shape that lies": (header(lambda h: h[DOWN].update(shape=[1 << 40, 1 << 40])), "N823", "not a whole"),
    "negative offsets": (header(lambda h: h[DOWN].update(data_offsets=[-8, 0])), "N823", "not a whole"),
    "an unknown type": (header(lambda h: h[DOWN].update(dtype="Q4")), "N823", "not a whole"),
    "integers": (tensors(**{DOWN: torch.zeros(32, 56, dtype=torch.int32)}), "N824", "of type I32"),
    "eight bits": (tensors(**{DOWN: torch.zeros(32, 56).to(torch.float8_e4m3fn)}), "N824", "of type F8_E4M3"),
    "a missing tensor": (tensors(**{DOWN: None}), "N861", f"`{DOWN}` is missing: the configuration needs it with the shape (32, 56)"),
    "a wrong shape": (tensors(**{DOWN: torch.zeros(32, 55)}), "N861", f"`{DOWN}` has the shape (32, 55), and the configuration says (32, 56)"),
    "a tensor too many": (tensors(**{"model.layers.0.adapter": torch.zeros(3)}), "N861", "`model.layers.0.adapter` of the shape (3,) has no place"),
    "a layer too many": (config(num_hidden_layers=2), "N861", "`model.layers.2."),
    "no head": (tensors(**{"lm_head.weight": None}), "N861", "`lm_head.weight` is missing"),
    "another vocabulary": (config(vocab_size=98), "N861", "(99, 32), and the configuration says (98, 32)"),
    "shards without a map": (text(f"{WEIGHTS}.index.json", "{}"), "N825", "no `weight_map`"),
    "a shard elsewhere": (lambda f: shards(f, **{DOWN: "../good/model.safetensors"}), "N825", "files beside it"),
    "a missing shard": (lambda f: shards(f, **{DOWN: "model-00001-of-00002.safetensors"}), "N825", "is missing"),
    "shards that lie": (lambda f: shards(f, **{DOWN: WEIGHTS}), "N825", "places it elsewhere"),
    "a tokenizer too large": (text("tokenizer.json", tokenizer(a=0, b=99)), "N866", "has the id 99, and the model has 99 rows"),
    "no tokenizer": (text("tokenizer.json", "{}"), "N869", "no `model.vocab`"),
    "ids that are none": (text("tokenizer.json", tokenizer(a=None)), "N869", "a token that is none"),
    "a cut tokenizer": (text("tokenizer.json", '{"model"'), "N863", "is not JSON"),
}  # fmt: skip


def run(*arguments: object) -> None:
    app([str(a) for a in arguments], standalone_mode=False)


@pytest.mark.parametrize("name", ROWS)
def test_a_harmed_directory_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    harm, code, part = ROWS[name]
    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(good, folder)
    out.mkdir()
    harm(folder)
    with pytest.raises(NeuralError) as error:
        run("import", folder, "--output", out / "model.neural")
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == code, diagnostic.title
    assert part in diagnostic.title
    assert not any(out.iterdir())


def test_the_good_directory_is_good(good: Path, tmp_path: Path) -> None:
    """Else the rows above would prove nothing."""
    run("import", good, "--output", tmp_path / "model.neural")
    assert {p.name for p in tmp_path.iterdir()} == {"model.neural", WEIGHTS}


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_in_the_weights_never_crash(seed: int, good: Path, tmp_path: Path) -> None:
    """Of the header, where every byte matters; some leave the file sound."""
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    data = bytearray((folder / WEIGHTS).read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 8 + int.from_bytes(data[:8], "little"), size=3):
        data[place] = rng.integers(256)
    (folder / WEIGHTS).write_bytes(data)
    try:
        run("import", folder, "--output", tmp_path / "model.neural")
    except NeuralError as error:
        assert error.diagnostics[0].code in {"N823", "N824", "N861"}
        assert not (tmp_path / "model.neural").exists()


SOURCES = [
    ("nothing", "N870", "there is no "),
    ("good/model.safetensors", "N870", "neither a Hugging Face folder nor a GGUF file"),
    ("hf:not a name", "N872", "no name of the hub"),
]


@pytest.mark.parametrize(("source", "code", "part"), SOURCES)
def test_sources_that_are_none(source: str, code: str, part: str, good: Path, tmp_path: Path) -> None:
    (tmp_path / "good").symlink_to(good)
    given = source if source.startswith("hf:") else tmp_path / source
    with pytest.raises(NeuralError, match=code) as error:
        run("import", given, "--output", tmp_path / "model.neural")
    assert part in error.value.diagnostics[0].title


def test_what_is_there_stays(good: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("mine")
    with pytest.raises(NeuralError, match="N871"):
        run("import", good, "--output", tmp_path / "model.neural")
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_program_has_its_suffix(good: Path, tmp_path: Path) -> None:
    with pytest.raises(NeuralError, match="N871"):
        run("import", good, "--output", tmp_path / "model.py")


def test_a_folder_that_is_not_there(good: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run("import", good, "--output", tmp_path / "no" / "model.neural")


def from_the_hub(name: str, cache: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`neural import hf:NAME` with a cache of its own and no network."""
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    return neural("import", f"hf:{name}", "--output", output, env=settings)


def test_a_model_of_the_hub(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models--someone--small"
    shutil.copytree(good, folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    done = from_the_hub("someone/small", tmp_path / "cache", tmp_path / "model.neural")
    assert done.returncode == 0, done.stderr
    assert "from hf:someone/small" in (tmp_path / "model.neural").read_text()


def test_a_model_that_the_hub_does_not_give(tmp_path: Path) -> None:
    done = from_the_hub("someone/none", tmp_path / "cache", tmp_path / "model.neural")
    assert done.returncode == 2
    assert "error[N872]: the Hugging Face hub does not give someone/none" in done.stderr
