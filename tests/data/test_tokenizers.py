"""Tokenizers: against nanoGPT's rule and Hugging Face's library, over text of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from transformers import PreTrainedTokenizerFast

from neural.data.corpus import open_corpus
from neural.data.tokenizers import StreamDecoder, Tokenizer, load_tokenizer, train_bpe
from tests.data.conftest import FRENCH, random_texts


def test_characters_are_nanogpts(tmp_path: Path, tiny_shakespeare: str) -> None:
    (tmp_path / "input.txt").write_text(tiny_shakespeare)
    ours = load_tokenizer("char", corpus=open_corpus("input.txt", base=tmp_path))
    chars = sorted(set(tiny_shakespeare))  # nanoGPT, data/shakespeare_char/prepare.py
    stoi = {ch: i for i, ch in enumerate(chars)}
    assert ours.vocab_size == len(chars) == 65 and ours.eot_id is None
    assert ours.encode(tiny_shakespeare) == [stoi[c] for c in tiny_shakespeare]


def test_characters_of_several_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "ba"}\n{"text": "c"}')
    ours = load_tokenizer("char", corpus=open_corpus("a.jsonl", base=tmp_path))
    assert ours.encode("abc") == [0, 1, 2] and ours.eot_id == 3 and ours.vocab_size == 4


def test_bytes_are_bytes(byte: Tokenizer) -> None:
    text = "".join(random_texts(20))
    assert byte.encode(text) == list(text.encode()) and byte.vocab_size == 257 and byte.eot_id == 256
    assert byte.decode(range(257)) == bytes(range(256)).decode(errors="replace")


@given(text=st.text())
def test_round_trip_of_any_text(gpt2: Tokenizer, byte: Tokenizer, learned: Tokenizer, text: str) -> None:
    for tokenizer in (gpt2, byte, learned):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode())


@given(text=st.text(st.sampled_from(FRENCH)))
def test_round_trip_of_characters(characters: Tokenizer, text: str) -> None:
    ids = characters.encode(text)
    assert characters.decode(ids) == text
    assert characters.byte_lengths[ids].tolist() == [len(c.encode()) for c in text]


def test_files_are_hugging_faces(tmp_path: Path, any_tokenizer: Tokenizer) -> None:
    """Their library gives our ids from our file, and the file gives our tokenizer back."""
    path = tmp_path / "tokenizer.json"
    any_tokenizer.save(path)
    again = load_tokenizer(str(path))
    assert (again.hash, again.kind, again.eot_id) == (any_tokenizer.hash, any_tokenizer.kind, any_tokenizer.eot_id)
    assert load_tokenizer(str(tmp_path)).hash == any_tokenizer.hash
    engine, fast = Engine.from_file(str(path)), PreTrainedTokenizerFast(tokenizer_file=str(path))
    for text in (FRENCH, FRENCH * 3, "", "\n\n  ", "été"):
        ids = any_tokenizer.encode(text)
        assert engine.encode(text, add_special_tokens=False).ids == ids == fast(text)["input_ids"]
        assert engine.decode(ids) == text == fast.decode(ids)
    assert list(tmp_path.iterdir()) == [path]


def test_special_tokens_are_no_text(gpt2: Tokenizer, byte: Tokenizer, learned: Tokenizer) -> None:
    for tokenizer in (gpt2, byte, learned):
        assert tokenizer.eot_id == tokenizer.vocab_size - 1
        assert tokenizer.eot_id not in tokenizer.encode("a<|endoftext|>b")
        assert tokenizer.decode(tokenizer.encode("a<|endoftext|>b")) == "a<|endoftext|>b"
        assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.eot_id, *tokenizer.encode("b")]) == "ab"
        assert tokenizer.piece(tokenizer.eot_id) == "<|endoftext|>"
        assert tokenizer.byte_lengths[tokenizer.eot_id] == 0 and tokenizer.byte_lengths.dtype == np.int32


def test_learned_bpe(learned: Tokenizer, speech: str) -> None:
    assert learned.vocab_size == 350
    assert len(learned.encode(speech)) < 0.4 * len(speech)
    merges = learned.layout["model"]["merges"]
    vocabulary = learned.layout["model"]["vocab"]
    assert [vocabulary["".join(pair)] for pair in merges] == list(range(256, 349))  # in the order they were learned
    assert [vocabulary[token] for token in ("!", "~", "Ā", "Ġ")] == [0, 93, 188, 220]  # as in GPT-2


def test_learning_does_not_depend_on_the_cores(tmp_path: Path, speech: str, python) -> None:
    (tmp_path / "a.txt").write_text(speech)
    program = """if True:
        from neural.data.corpus import open_corpus
        from neural.data.tokenizers import train_bpe
        print(train_bpe(open_corpus("a.txt"), 500).hash)"""
    cores = ({"RAYON_NUM_THREADS": "1"}, {"RAYON_NUM_THREADS": "3"}, {"TOKENIZERS_PARALLELISM": "false"})
    said = [python(program, cwd=tmp_path, env=env).stdout for env in cores]
    assert len(set(said)) == 1 and len(said[0]) == 65


def test_a_small_corpus_gives_fewer_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the the the")
    small = train_bpe(open_corpus("a.txt", base=tmp_path), 4096)
    assert 257 < small.vocab_size < 265 and small.decode(small.encode("other the")) == "other the"


def test_mistakes_in_the_corpus_reach_the_learner(tmp_path: Path, refused) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with refused("N704", "offset 3"):
        train_bpe(open_corpus("a.txt", base=tmp_path), 300)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@given(data=st.data())
def test_streaming_loses_nothing(gpt2: Tokenizer, byte: Tokenizer, learned: Tokenizer, data: st.DataObject) -> None:
    """Any ids, also those whose bytes are no text, and pieces that never hold a character that is not whole."""
    for tokenizer in (gpt2, byte, learned):
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)
        text = data.draw(st.text())
        assert "\ufffd" not in "".join(streamed(tokenizer, tokenizer.encode(text))).replace(
            "\ufffd" * ("\ufffd" in text), ""
        )


def test_streaming_waits_for_the_whole_character(byte: Tokenizer) -> None:
    assert streamed(byte, list("é😀!".encode())) == ["", "é", "", "", "", "😀", "!", ""]
    assert streamed(byte, list("é".encode())[:1]) == ["", "\ufffd"]


def test_another_kind(metaspace: Tokenizer) -> None:
    text = "the kings the é kings😀 the"
    ids = metaspace.encode(text)
    assert metaspace.decode(ids) == text == "".join(streamed(metaspace, ids))
    assert metaspace.eot_id == 1 and not metaspace.cuts_exactly
    assert metaspace.byte_lengths[ids].sum() == len(text.encode()) + 1  # the mark at the beginning


@given(text=st.text(st.sampled_from("the kings é😀")))
def test_another_kind_streamed(metaspace: Tokenizer, text: str) -> None:
    ids = metaspace.encode(text)
    assert "".join(streamed(metaspace, ids)) == metaspace.decode(ids)


def test_which_kinds_may_be_cut(any_tokenizer: Tokenizer) -> None:
    if any_tokenizer.is_bytewise:
        assert any_tokenizer.cuts_exactly
