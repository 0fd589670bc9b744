"""What is refused of tokenizers: files, names, texts and ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neural.data.corpus import open_corpus
from neural.data.tokenizers import StreamDecoder, Tokenizer, load_tokenizer, train_bpe

DOCUMENT = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}


def changed(**parts: object) -> str:
    return json.dumps(DOCUMENT | parts)


def model(**parts: object) -> str:
    return json.dumps(DOCUMENT | {"model": DOCUMENT["model"] | parts})


FILES_REFUSED = {
    "empty": ("", ("N752", "not JSON")),
    "not JSON": ("{", ("N752", "not JSON", "line 1, column 2")),
    "not UTF-8": (b"\xff", ("N752", "not UTF-8")),
    "a list": ("[]", ("N752", '"model"')),
    "deep": ("[" * 100_000, ("N752", "nesting")),
    "a long number": ("1" * 5000, ("N752", "number")),
    "no model": (changed(model=None), ("N752", '"model"')),
    "no vocabulary": (model(vocab=None), ("N752", '"vocab"')),
    "an empty vocabulary": (model(vocab={}), ("N752", "empty")),
    "an id below 0": (model(vocab={"a": -1}), ("N752", "-1")),
    "a huge id": (model(vocab={"a": 1 << 40}), ("N752", "1099511627776")),
    "a half id": (model(vocab={"a": 0.5}), ("N752", "0.5")),
    "one id twice": (model(vocab={"a": 0, "b": 0}), ("N752", "two tokens")),
    "a merge of nothing": (model(merges=["a b"]), ("N752", "out of vocabulary")),
    "merges of numbers": (model(merges=[1]), ("N752", '"merges"')),
    "an unknown model": (model(type="Magic"), ("N752",)),
    "an unknown cutter": (changed(pre_tokenizer={"type": "Magic"}), ("N752",)),
    "a cutter of another kind": (changed(pre_tokenizer=[1]), ("N752", '"pre_tokenizer"')),
    "added tokens of another kind": (changed(added_tokens={"a": 1}), ("N752", '"added_tokens"')),
    "an added token without text": (changed(added_tokens=[{"id": 1}]), ("N752", '"content"')),
    "an added token with a gap": (
        changed(added_tokens=[{"id": 9, "content": "x", "special": True, "single_word": False, "lstrip": False,
                               "rstrip": False, "normalized": False}]),
        ("N752", "'x' cannot have the id 9"),
    ),
    "half of a surrogate pair": (model(vocab={"\ud800": 0}), ("N752",)),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FILES_REFUSED.values(), ids=FILES_REFUSED)
def test_files_refused(tmp_path: Path, refused, content: str | bytes, message: tuple[str, ...]) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(*message):
        load_tokenizer(str(path))


NAMES_REFUSED = {
    "an unknown name": ("gpt-2", ("N750", 'did you mean "gpt2"?', "gpt2, char, byte")),
    "nothing near": ("bert", ("N750", "path of a tokenizer.json")),
    "no file": ("tok.jsno", ("N751", "did you mean tok.json?")),
    "no folder": ("nix/tok.json", ("N751", "no folder nix")),
    "a folder without": ("folder", ("N751", "it holds: a.txt", "merges.txt")),
    "an empty folder": ("empty", ("N751", "it is empty")),
    "characters of nothing": ("char", ("N755",)),
    "a merges file with more": ("three", ("N752", "merges.txt:3", "'a b c'")),
    "a vocabulary that is a list": ("listed", ("N752", "vocab.json")),
    "a huge file": ("huge.json", ("N753", "300,000,000 bytes")),
}


@pytest.mark.parametrize(("spec", "message"), NAMES_REFUSED.values(), ids=NAMES_REFUSED)
def test_names_refused(tmp_path: Path, refused, monkeypatch, spec: str, message: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tok.json").write_text("{}")
    for folder in ("folder", "empty", "three", "listed"):
        Path(folder).mkdir()
    Path("folder/a.txt").write_text("x")
    Path("three/vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    Path("three/merges.txt").write_text("#version: 0.2\na b\na b c\n")
    Path("listed/vocab.json").write_text("[1]")
    Path("listed/merges.txt").write_text("a b\n")
    with Path("huge.json").open("wb") as file:
        file.truncate(300_000_000)
    with refused(*message):
        load_tokenizer(spec)


@pytest.mark.parametrize("size", [-1, 0, 256, 1 << 21])
def test_vocabulary_sizes_refused(tmp_path: Path, refused, size: int) -> None:
    (tmp_path / "a.txt").write_text("text")
    with refused("N759", f"not {size:,}"):
        train_bpe(open_corpus("a.txt", base=tmp_path), size)


def test_unknown_characters(characters: Tokenizer, refused) -> None:
    with refused("N756", "'Ω' (U+03A9), '字' (U+5B57)", "first at character 4", '"byte"'):
        characters.encode("été 字Ω字")
    with refused("N756", "and 16 more"):
        characters.encode("ABCDEFGHIJKLMNOPQRSTUVWXYZ".replace("L", ""))


@pytest.mark.parametrize("text", ["a\ud83d", "\udce9", "é\udfff!"])
def test_halves_of_surrogate_pairs(any_tokenizer: Tokenizer, refused, text: str) -> None:
    with refused("N757", "surrogate"):
        any_tokenizer.encode(text)


@pytest.mark.parametrize("wrong", [-1, 1 << 20, 1 << 70])
def test_ids_outside_the_vocabulary(any_tokenizer: Tokenizer, metaspace: Tokenizer, refused, wrong: int) -> None:
    for tokenizer in (any_tokenizer, metaspace):
        for use in (lambda t: t.decode([0, wrong]), lambda t: t.piece(wrong), lambda t: StreamDecoder(t).push(wrong)):
            with refused("N758", f"no token {wrong}"):
                use(tokenizer)


def test_without_the_library(tmp_path: Path, python) -> None:
    """Characters and bytes need NumPy alone; BPE says what is missing."""
    (tmp_path / "a.txt").write_text("some text")
    program = """if True:
        import sys
        sys.modules["tokenizers"] = None
        from neural.data.corpus import open_corpus
        from neural.data.tokenizers import load_tokenizer, train_bpe
        from neural.diagnostics.diagnostic import NeuralError
        corpus = open_corpus("a.txt")
        for spec in ("byte", "char"):
            tokenizer = load_tokenizer(spec, corpus=corpus)
            tokenizer.save("tokenizer.json")
            print(load_tokenizer("tokenizer.json").decode(tokenizer.encode("some text")))
        for call in (lambda: train_bpe(corpus, 300), lambda: load_tokenizer("gpt2")):
            try:
                call()
            except NeuralError as error:
                print(error, error.diagnostics[0].notes)"""
    said = python(program, cwd=tmp_path).stdout
    assert said.startswith("some text\nsome text\nN762: ")
    assert said.count("N762") == said.count("the package tokenizers") == 2
