"""`neural tokenizer` and `neural data`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from neural.cli import data, tokenizer
from neural.data.tokenizers import Tokenizer, load_tokenizer

app = typer.Typer()
app.add_typer(data.app)
app.add_typer(tokenizer.app)


def neural(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin, catch_exceptions=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: str) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(speech)
    return tmp_path


def test_learning_a_tokenizer(folder: Path) -> None:
    result = neural("tokenizer", "train", "corpus.txt", "--vocab-size", 300, "--output", "tok.json", "--json")
    facts = json.loads(result.stdout)
    learned = load_tokenizer("tok.json")
    assert result.exit_code == 0
    assert facts["vocab_size"] == learned.vocab_size == 300 and facts["hash"] == learned.hash
    assert facts["output"] == "tok.json" and facts["kind"] == "byte-level BPE" and facts["eot_id"] == 299
    assert result.stderr.startswith("learning tokens: 37.4 kB in ") and result.stderr.endswith("/s)\n")


def test_a_corpus_that_runs_out() -> None:
    result = neural("tokenizer", "train", "corpus.txt", "--vocab-size", 100_000)
    assert "no more pairs" in result.stderr and result.stdout.startswith("tokenizer.json: ")


def test_encoding_and_decoding(gpt2: Tokenizer) -> None:
    ids = "8199 1523 32643 1838 3303 4981 2562 0\n"
    text = "Neural DSL makes language models easy!"
    encoded = neural("tokenizer", "encode", text)
    assert encoded.stdout == ids and "8 tokens: 'Ne" in encoded.stderr
    assert neural("tokenizer", "encode", "-", stdin=text).stdout == ids
    assert json.loads(neural("tokenizer", "encode", text, "--json").stdout)["pieces"] == [
        "Ne",
        "ural",
        " DSL",
        " makes",
        " language",
        " models",
        " easy",
        "!",
    ]
    assert neural("tokenizer", "decode", *ids.split()).stdout == text + "\n"
    assert neural("tokenizer", "decode", stdin=ids).stdout == text + "\n"
    assert neural("tokenizer", "encode", "é", "-t", "byte").stdout == "195 169\n"


def test_showing_a_tokenizer(gpt2: Tokenizer) -> None:
    facts = json.loads(neural("tokenizer", "show", "gpt2", "--json").stdout)
    assert facts["hash"] == gpt2.hash and facts["source"] == gpt2.source and facts["vocab_size"] == 50257
    shown = neural("tokenizer", "show", "byte").stdout
    assert "vocab size   257" in shown and "eot id       256" in shown


def test_preparing_shards(folder: Path, gpt2: Tokenizer, speech: str) -> None:
    result = neural("data", "prepare", "corpus.txt", "--tokenizer", "gpt2", "--output", "shards", "--json")
    facts = json.loads(result.stdout)
    ids = gpt2.encode(speech)
    assert result.exit_code == 0 and result.stderr.startswith("tokenising: ")
    assert facts["tokens"] == len(ids) and facts["bytes"] == len(speech) and facts["documents"] == 1
    shown = json.loads(neural("data", "show", "shards", "--tokens", 5, "--json").stdout)
    assert shown == {**facts, "begins": gpt2.decode(ids[:5])}
    assert f"tokens             {len(ids):,}\n" in neural("data", "show", "shards").stdout


def test_preparing_characters_of_json_lines(folder: Path) -> None:
    Path("a.jsonl").write_text('{"body": "ab"}\n{"body": "ba"}')
    words = ("data", "prepare", "a.jsonl", "--text-field", "body", "--tokenizer", "char", "-o", "shards")
    assert "documents          2\n" in neural(*words).stdout
    assert "begins             'abba'\n" in neural("data", "show", "shards").stdout


def test_the_plays(folder: Path) -> None:
    result = neural("data", "shakespeare", "--output", "plays.txt")
    text = Path("plays.txt").read_text()
    assert result.stdout == f"plays.txt: {len(text):,} characters, {len(set(text))} different ones\n"
    assert text.startswith("THESEUS:\nNow, fair Hippolyta")


MISTAKES = {
    "no corpus": (("data", "prepare", "corpsu.txt", "--tokenizer", "gpt2", "-o", "s"), "N701"),
    "no tokenizer": (("data", "prepare", "corpus.txt", "--tokenizer", "gpt", "-o", "s"), "N750"),
    "no shards": (("data", "show", "."), "N720"),
    "characters without text": (("tokenizer", "encode", "x", "-t", "char"), "N755"),
    "no ids": (("tokenizer", "decode"), "N758"),
    "an id too large": (("tokenizer", "decode", "50257"), "N758"),
    "a small vocabulary": (("tokenizer", "train", "corpus.txt", "--vocab-size", "10"), "N759"),
}


@pytest.mark.parametrize(("words", "code"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(refused, folder: Path, words: tuple[str, ...], code: str) -> None:
    with refused(code):
        neural(*words, stdin="12 x")
    assert [file.name for file in folder.iterdir()] == ["corpus.txt"]


@pytest.mark.parametrize(("output", "error"), [("nix/tok.json", FileNotFoundError), (".", IsADirectoryError)])
def test_nothing_is_learned_for_a_place_that_is_not(output: str, error: type[OSError], monkeypatch) -> None:
    monkeypatch.setattr("neural.data.tokenizers.train_bpe", None)
    with pytest.raises(error) as raised:
        neural("tokenizer", "train", "corpus.txt", "--output", output)
    assert raised.value.filename in ("nix", ".")


def test_help_is_light(python) -> None:
    """The commands are imported by every other one: nothing heavy comes with them."""
    program = """if True:
        import sys
        from neural.cli import data, tokenizer
        print(sorted({"numpy", "torch", "tokenizers", "neural.data"} & set(sys.modules)))"""
    assert python(program).stdout == "[]\n"
