"""GGUF in llama.cpp: it loads what we write, computes what our model computes, and cuts text as the tokenizer does."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from neural.interop.decoder import Checkpoint, Rotary, Vocabulary
from neural.interop.gguf import read, sentencepiece, write
from neural.interop.gguf.documents import Kind, around, document
from neural.interop.gguf.pretokenizers import CUTS
from tests.interop.gguf_models import (
    DECODERS,
    NUMERALS,
    TEXTS,
    LlamaCpp,
    gpt2_vocabulary,
    greedy,
    model_of,
    random_checkpoint,
)

PROMPT = [464, 3290, 318, 257]
LLAMAS = {
    **DECODERS,
    "llama with biases": replace(DECODERS["llama"], qkv_bias=True, out_bias=True, mlp_bias=True, tied=True),
    "linear": replace(DECODERS["llama"], rope=Rotary(10000.0, "linear", 4.0)),
    "Llama 3": replace(
        DECODERS["llama"], head_dim=32, rope=Rotary(100.0, "llama3", 8.0, original_max_length=64), context=256
    ),
}


@pytest.mark.parametrize("name", LLAMAS)
def test_llama_cpp_writes_what_our_model_writes(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(LLAMAS[name])
    write(checkpoint, tmp_path / "model.gguf")
    ours = greedy(model_of(checkpoint), PROMPT, 64)
    assert len(set(ours)) > 20
    assert LlamaCpp(tmp_path / "model.gguf").greedy(PROMPT, 64) == ours


def with_cut(name: str, **changes) -> Vocabulary:
    """GPT-2's tokens under another cut. No merge makes `Hello`: only who takes whole words has it."""
    layout, cut = json.loads(gpt2_vocabulary().tokenizer_json), CUTS[name]
    layout["model"]["merges"] = [pair for pair in layout["model"]["merges"] if "".join(pair) != "Hello"]
    layout["pre_tokenizer"], layout["normalizer"] = cut.pre_tokenizer, {"type": "NFC"} if cut.nfc else None
    layout["model"]["ignore_merges"] = cut.whole_words
    return replace(gpt2_vocabulary(), tokenizer_json=json.dumps(layout | changes))


def least(vocabulary: Vocabulary) -> Checkpoint:
    """The least model that llama.cpp loads with a tokenizer."""
    sizes = {"d_model": 8, "d_ff": 8, "n_layer": 1, "n_head": 1, "n_kv_head": 1, "head_dim": 8}
    return random_checkpoint(replace(DECODERS["llama"], **sizes), vocabulary)


@pytest.mark.parametrize("name", CUTS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(name: str, tmp_path: Path) -> None:
    vocabulary = with_cut(name)
    write(least(vocabulary), tmp_path / "model.gguf")
    again = read(tmp_path / "model.gguf").vocabulary
    assert json.loads(again.tokenizer_json) == json.loads(vocabulary.tokenizer_json)
    theirs, ours = LlamaCpp(tmp_path / "model.gguf"), Tokenizer.from_str(again.tokenizer_json)
    assert (ours.encode("Hello").tokens == ["Hello"]) is CUTS[name].whole_words
    for text in (*TEXTS, NUMERALS):
        assert theirs.encode(text) == ours.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken"])
def test_a_pattern_is_that_of_transformers(name: str) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    assert CUTS[name].steps[0]["pattern"]["Regex"] == GGUF_PRE_TOKENIZER_SPLITS[name]


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_llama_cpp_puts_the_same_tokens_around_a_text(bos: bool, eos: bool, tmp_path: Path) -> None:
    end = ("<|endoftext|>", 50256)
    vocabulary = with_cut("gpt-2", post_processor=around(end if bos else None, end if eos else None))
    write(least(vocabulary), tmp_path / "model.gguf")
    again = read(tmp_path / "model.gguf").vocabulary
    assert json.loads(again.tokenizer_json) == json.loads(vocabulary.tokenizer_json)
    ids = Tokenizer.from_str(again.tokenizer_json).encode("the world").ids
    assert ids == [50256] * bos + [1169, 995] + [50256] * eos
    assert LlamaCpp(tmp_path / "model.gguf").encode("the world", ends=True) == ids


@cache
def pieces() -> tuple[list[str], list[Kind]]:
    """SentencePiece's, with merged ones from this project's own words, the best first."""
    words = " ".join(path.read_text("utf-8") for path in sorted(Path("docs").rglob("*.md")))
    learned, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=1500, show_progress=False)
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    learned.train_from_iterator([words], trainer)
    merged = dict.fromkeys("".join(pair) for pair in json.loads(learned.to_str())["model"]["merges"])
    single = [token for token in learned.get_vocab() if token not in merged]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *sorted(single)]
    kinds = [Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, *[Kind.BYTE] * 256]
    return tokens, kinds + [Kind.NORMAL] * (len(tokens) - len(kinds))


def with_pieces(*, space_before: bool) -> Checkpoint:
    tokens, kinds = pieces()
    merges = sentencepiece.merges_of(tokens, kinds, [-float(i) for i in range(len(tokens))])
    model = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "merges": merges}
    parts = sentencepiece.parts(space_before=space_before) | {"post_processor": around(("<s>", 1), None)}
    layout = document(tokens, kinds, parts, model)
    checkpoint = least(Vocabulary(json.dumps(layout), bos_id=1, eos_id=2))
    table = checkpoint.tensors["tokens.weight"][: len(tokens)]
    tensors = checkpoint.tensors | {"tokens.weight": table, "head.weight": table}
    return replace(checkpoint, decoder=replace(checkpoint.decoder, vocab_size=len(tokens)), tensors=tensors)


@pytest.mark.parametrize("space_before", [True, False])
def test_llama_cpp_makes_the_same_pieces(space_before: bool, tmp_path: Path) -> None:
    checkpoint = with_pieces(space_before=space_before)
    write(checkpoint, tmp_path / "model.gguf")
    again = read(tmp_path / "model.gguf").vocabulary
    assert json.loads(again.tokenizer_json) == json.loads(checkpoint.vocabulary.tokenizer_json)
    theirs, ours = LlamaCpp(tmp_path / "model.gguf"), Tokenizer.from_str(again.tokenizer_json)
    for text in (*TEXTS, NUMERALS, "a</s>b <s> c", Path("README.md").read_text("utf-8")):
        assert ours.encode(text).ids == theirs.encode(text, ends=True), text
    assert ours.decode(ours.encode(TEXTS[2]).ids) == TEXTS[2]


def test_transformers_makes_the_same_pieces(tmp_path: Path) -> None:
    """Of texts without special tokens or a space at the beginning, where it puts none before; llama.cpp and we do."""
    from transformers import AutoTokenizer

    write(with_pieces(space_before=True), tmp_path / "model.gguf")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    ours = Tokenizer.from_str(read(tmp_path / "model.gguf").vocabulary.tokenizer_json)
    for text in (*TEXTS, NUMERALS):
        if text.strip(" ") and not text.startswith(" "):
            assert ours.encode(text).ids == theirs(text)["input_ids"], text
