"""Hugging Face directories in and out, against transformers: every family, every feature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from neural.backends.module import load_module
from neural.compiler import load
from neural.diagnostics.diagnostic import NeuralError
from neural.interop import exports, huggingface, imports
from neural.interop.decoder import Checkpoint
from neural.interop.recognition import from_network, recognize
from neural.interop.tensor_files import write_tensors
from neural.interop.weights import program_weights
from neural.training.pretrained import load_pretrained
from tests.interop.families import CONTEXT, MODELS, random_model, some_ids


class Saved:
    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.model = random_model(name)
        self.model.save_pretrained(folder)

    def logits(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(some_ids()).logits


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(request.param, tmp_path_factory.mktemp("model"))


def imported(folder: Path, output: Path):
    return imports.write_program(huggingface.read(folder), output, folder.name)


def reexported(folder: Path, work: Path) -> Path:
    """Imported, and exported from the program that the import wrote."""
    program = load(imported(folder, work / "model.neural").files[-1])
    recognized = recognize(program.graph)
    out = work / "out"
    out.mkdir()
    tensors = from_network(recognized, program_weights(program))
    exports.export(Checkpoint(recognized.decoder, tensors), "hf", out)
    return out


def test_an_imported_program_computes_what_transformers_does(saved: Saved, tmp_path: Path) -> None:
    path = imported(saved.folder, tmp_path / "model.neural").files[-1]
    program = load(path)
    model = getattr(load_module(program.source(), "ours"), program.name)().eval()
    load_pretrained(model, program)
    with torch.no_grad():
        assert (model(some_ids()) - saved.logits()).abs().max() <= 2e-5
    assert program.messages == ()
    assert len(path.read_text().splitlines()) < 60


def test_an_export_computes_the_same_in_transformers(saved: Saved, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(reexported(saved.folder, tmp_path)).eval()
    with torch.no_grad():
        assert (model(some_ids()).logits - saved.logits()).abs().max() <= 2e-5


MATTER = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters", "attention_bias",
    "mlp_bias", "tie_word_embeddings", "sliding_window", "use_sliding_window", "layer_types", "attention_dropout",
    "architectures", "model_type",
    "n_embd", "n_inner", "n_positions", "activation_function", "layer_norm_epsilon", "scale_attn_weights",
    "resid_pdrop", "embd_pdrop", "attn_pdrop",
)  # fmt: skip


def test_a_configuration_comes_back(saved: Saved, tmp_path: Path) -> None:
    checkpoint = huggingface.read(saved.folder)
    huggingface.write(checkpoint, tmp_path)
    there, back = (AutoConfig.from_pretrained(folder).to_dict() for folder in (saved.folder, tmp_path))
    assert {k: back.get(k) for k in MATTER} == {k: there.get(k) for k in MATTER}
    assert huggingface.read(tmp_path).decoder == checkpoint.decoder


def test_the_weights_come_back_bit_by_bit(saved: Saved, tmp_path: Path) -> None:
    huggingface.write(huggingface.read(saved.folder), tmp_path)
    there, back = (load_file(folder / "model.safetensors") for folder in (saved.folder, tmp_path))
    assert there.keys() == back.keys()
    half = exports.HALF_STEP if saved.name == "gemma" else 0.0
    for name, tensor in there.items():
        assert (tensor - back[name]).abs().max() <= (half if "norm" in name else 0.0), name


def old_spelling(config: dict) -> dict:
    """As transformers 4 wrote it."""
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return config
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type" if kind == "linear" else "rope_type": kind, **rope}
    return config


def test_the_configuration_of_transformers_4(saved: Saved, tmp_path: Path) -> None:
    config = old_spelling(json.loads((saved.folder / "config.json").read_text()))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(saved.folder / "model.safetensors")
    assert huggingface.read(tmp_path).decoder == huggingface.read(saved.folder).decoder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model("llama").to(dtype)
    model.save_pretrained(tmp_path)
    found = huggingface.read(tmp_path).tensors["blocks.1.down.weight"]
    assert found.dtype == np.float32
    assert np.array_equal(found, model.model.layers[1].mlp.down_proj.weight.detach().float().numpy())


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    model = random_model("llama")
    model.save_pretrained(whole)
    model.save_pretrained(cut, max_shard_size="20KB")
    assert len(list(cut.glob("model-*.safetensors"))) > 2
    there, back = huggingface.read(whole), huggingface.read(cut)
    assert there.decoder == back.decoder
    assert exports.compare(there, back) is None


def test_shards_that_we_write_load_in_transformers(tmp_path: Path) -> None:
    model = random_model("qwen2")
    model.config.save_pretrained(tmp_path)
    write_tensors({n: t.numpy() for n, t in model.state_dict().items()}, tmp_path, shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    again = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_names_without_a_prefix_and_masks_among_the_weights(tmp_path: Path) -> None:
    """As openai-community/gpt2 has them."""
    there, old = tmp_path / "there", tmp_path / "old"
    random_model("gpt2").save_pretrained(there)
    old.mkdir()
    state = {n.removeprefix("transformer."): t for n, t in load_file(there / "model.safetensors").items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, CONTEXT, CONTEXT).tril() for i in range(3)}
    save_file(state | masks, old / "model.safetensors")
    (old / "config.json").write_text((there / "config.json").read_text())
    assert exports.compare(huggingface.read(there), huggingface.read(old)) is None


def test_a_tied_head_may_be_stored_and_must_be_the_table(tmp_path: Path) -> None:
    random_model("llama, tied, biased").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    before = huggingface.read(tmp_path)
    save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}, file)
    assert exports.compare(before, huggingface.read(tmp_path)) is None
    save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"] + 1}, file)
    with pytest.raises(NeuralError, match=r"N861: `lm_head.weight` differs from the embedding"):
        huggingface.read(tmp_path)


CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def test_the_tokenizer_and_its_chats_come_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = list("abcdefghijklmnopqrstuvwxyz")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"], trainer)
    there = tmp_path / "there"
    random_model("qwen2").save_pretrained(there)
    tokenizer.save(str(there / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "chat_template": CHAT}
    settings |= {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}
    (there / "tokenizer_config.json").write_text(json.dumps(settings))
    written = imported(there, tmp_path / "model.neural")
    assert (tmp_path / "tokenizer.json") in written.files
    assert load(tmp_path / "model.neural").settings.tokenizer == "tokenizer.json"
    out = tmp_path / "out"
    out.mkdir()
    huggingface.write(huggingface.read(there), out)
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (there, out))
    text = "the lazy<|im_end|> fox"
    assert new(text).input_ids == old(text).input_ids
    assert (new.eos_token, new.pad_token, new.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    chat = [{"role": "user", "content": "the dog"}]
    assert new.apply_chat_template(chat, tokenize=False) == "<|im_start|>the dog<|im_end|>"
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == new.eos_token_id
