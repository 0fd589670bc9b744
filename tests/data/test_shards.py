"""Shards: what goes in comes out, whatever the cores; what is damaged is refused; nothing half-written is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural.data import shard_writing
from neural.data.corpus import open_corpus
from neural.data.shard_file import HEADER_BYTES, Header, read_header
from neural.data.shards import TokenStore, is_store, open_shards, write_shards
from neural.data.tokenizers import Tokenizer, load_tokenizer
from neural.diagnostics.diagnostic import NeuralError


def written(folder: Path, tokenizer: Tokenizer, text: str | bytes, name: str = "a.txt", **options: int) -> TokenStore:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return write_shards(open_corpus(folder / name), tokenizer, folder / "shards", progress=False, **options)


@pytest.fixture
def folder(tmp_path: Path, byte: Tokenizer) -> Path:
    """Three shards: 100, 100 and 50 bytes."""
    written(tmp_path, byte, bytes(range(1, 126)) * 2, shard_tokens=100)
    return tmp_path / "shards"


@pytest.mark.parametrize("spec", ["gpt2", "char", "byte"])
def test_a_text_comes_back(tmp_path: Path, speech: str, spec: str) -> None:
    (tmp_path / "a.txt").write_text(speech)
    corpus = open_corpus("a.txt", base=tmp_path)
    tokenizer = load_tokenizer(spec, corpus=corpus)
    store = write_shards(corpus, tokenizer, tmp_path / "shards", progress=False, shard_tokens=7001)
    again = open_shards(tmp_path / "shards", tokenizer.hash)
    for found in (store, again):
        assert found[:].tolist() == tokenizer.encode(speech)
        assert len(found) == found.n_tokens == len(tokenizer.encode(speech))
        assert found.n_bytes == len(speech.encode()) and found.n_documents == 1
        assert found.vocab_size == tokenizer.vocab_size and found.tokenizer_hash == tokenizer.hash
        assert found.corpus_fingerprint == corpus.fingerprint
    assert again.fingerprint == store.fingerprint and again.dtype == np.uint16
    assert load_tokenizer(str(tmp_path / "shards")).hash == tokenizer.hash
    assert is_store(tmp_path / "shards") and not is_store(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "shards"]


def test_files_of_a_store(folder: Path, byte: Tokenizer) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [*(f"0000{i}.tokens" for i in range(3)), "tokenizer.json"]
    first = (folder / "00000.tokens").read_bytes()
    assert first[:8] == b"\x93NEURTOK" and np.frombuffer(first[256:], "<u2").tolist() == list(range(1, 101))
    headers = [read_header(folder / f"0000{i}.tokens") for i in range(3)]
    assert [(h.index, h.n_shards, h.n_tokens, h.n_bytes, h.n_documents) for h in headers] == [
        (0, 3, 100, 100, 1),
        (1, 3, 100, 100, 0),
        (2, 3, 50, 50, 0),
    ]
    assert {h.tokenizer_hash.hex() for h in headers} == {byte.hash}
    assert not (folder.stat().st_mode ^ 0o40755)


@given(a=st.integers(-300, 300) | st.none(), b=st.integers(-300, 300) | st.none())
def test_slices_across_shards(tmp_path_factory: pytest.TempPathFactory, byte: Tokenizer, a: int, b: int) -> None:
    store, ids = sliced(tmp_path_factory, byte)
    assert store[a:b].tolist() == ids[a:b]
    assert store[a:b].dtype == np.uint16 and type(store[a:b]) is np.ndarray


def sliced(factory: pytest.TempPathFactory, byte: Tokenizer, cache: list = []) -> tuple[TokenStore, list[int]]:  # noqa: B006
    if not cache:
        text = bytes(range(1, 126)) * 2
        cache.append((written(factory.mktemp("sliced"), byte, text, shard_tokens=40), list(text)))
    return cache[0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_ids_that_were_read_are_not_in_memory(folder: Path, byte: Tokenizer) -> None:
    """A page of a mapped file counts as the process's, and a long training looks at all of them."""
    store = written(folder / "shards", byte, "abc" * 9999)
    assert store[:].size == store.n_tokens
    assert str(store.directory) not in Path("/proc/self/maps").read_text()


def test_a_shard_that_is_cut_while_it_is_read(folder: Path, byte: Tokenizer) -> None:
    store = written(folder / "shards", byte, "abc" * 9999)
    os.truncate(store.directory / "00000.tokens", 1000)
    assert store[:9].tolist() == [97, 98, 99] * 3
    with pytest.raises(NeuralError, match=r"N723: .*00000\.tokens was cut short while it was read"):
        store[20000:20009]


def test_slices_with_steps(folder: Path) -> None:
    with pytest.raises(ValueError, match="steps"):
        open_shards(folder)[::2]


def test_documents_are_separated(tmp_path: Path, byte: Tokenizer) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text in ("ab", "", "c", "de"))
    store = written(tmp_path, byte, lines, "a.jsonl", shard_tokens=3)
    assert store[:].tolist() == [*b"ab", 256, *b"c", 256, *b"de"]
    assert store.n_documents == 3 and store.n_bytes == 5
    assert [header.n_documents for header in store.headers] == [1, 2, 0]


def test_characters_of_several_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "ab"}\n{"text": "c"}')
    corpus = open_corpus("a.jsonl", base=tmp_path)
    store = write_shards(corpus, load_tokenizer("char", corpus=corpus), tmp_path / "s", progress=False)
    assert store[:].tolist() == [0, 1, 3, 2]


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(chr(i) for i in range(0x10000, 0x10000 + 70_000)))
    corpus = open_corpus("a.txt", base=tmp_path)
    store = write_shards(corpus, load_tokenizer("char", corpus=corpus), tmp_path / "s", progress=False)
    assert store.dtype == np.uint32 and store[:].tolist() == list(range(70_000))
    assert open_shards(tmp_path / "s")[-1:].tolist() == [69_999]


def test_small_batches_are_the_same(tmp_path: Path, gpt2: Tokenizer, speech: str, monkeypatch) -> None:
    whole = written(tmp_path / "1", gpt2, speech)
    monkeypatch.setattr(shard_writing, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(shard_writing, "PIECE_CHARACTERS", 50)
    parts = written(tmp_path / "2", gpt2, speech)
    assert parts.fingerprint == whole.fingerprint


def test_cores_do_not_matter(tmp_path: Path, speech: str, python) -> None:
    (tmp_path / "a.txt").write_text(speech)
    program = """if True:
        import sys
        from neural.data.corpus import open_corpus
        from neural.data.shards import write_shards
        from neural.data.tokenizers import load_tokenizer
        store = write_shards(
            open_corpus("a.txt"), load_tokenizer("gpt2"), sys.argv[1], progress=False, shard_tokens=1000
        )
        print(store.fingerprint)"""
    cores = ({"RAYON_NUM_THREADS": "1"}, {"RAYON_NUM_THREADS": "3"}, {"TOKENIZERS_PARALLELISM": "false"})
    said = [python(program, str(i), cwd=tmp_path, env=env).stdout for i, env in enumerate(cores)]
    assert len(set(said)) == 1 and len(said[0]) == 65
    files = [sorted((file.name, file.read_bytes()) for file in (tmp_path / str(i)).iterdir()) for i in range(3)]
    assert files[0] == files[1] == files[2]


def test_tokenizers_that_mark_the_beginning_get_documents_whole(tmp_path: Path, monkeypatch) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers import models, pre_tokenizers

    words = {word: i for i, word in enumerate(["▁", "▁a", "a", "b", "</s>"])}
    engine = Engine(models.BPE(words, [("▁", "a")]))
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    engine.add_special_tokens(["</s>"])
    tokenizer = Tokenizer(json.loads(engine.to_str()), "a test")
    monkeypatch.setattr(shard_writing, "PIECE_CHARACTERS", 2)
    store = written(tmp_path, tokenizer, '{"text": "ab a b"}\n{"text": "b"}', "a.jsonl")
    assert store[:].tolist() == [1, 3, 1, 0, 3, 4, 0, 3] == [*tokenizer.encode("ab a b"), 4, *tokenizer.encode("b")]


def damage(folder: Path, at: int, data: bytes, name: str = "00001.tokens") -> None:
    with (folder / name).open("r+b") as file:
        file.seek(at)
        file.write(data)


def rewrite(folder: Path, name: str = "00001.tokens", **fields: object) -> None:
    header = read_header(folder / name)
    damage(folder, 0, Header(**{**vars(header), **fields}).pack(), name)


DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": (lambda f: f.rename(f.with_name("x")), ("N720", "is not a folder")),
    "a file": (lambda f: (f.rename(f.with_name("x")), f.write_text("x")), ("N720", "is not a folder")),
    "no shards": (lambda f: [file.unlink() for file in f.glob("*.tokens")], ("N720", "neural data prepare")),
    "a folder as a shard": (lambda f: (f / "00003.tokens").mkdir(), ("N720", "Is a directory")),
    "another kind of file": (lambda f: damage(f, 0, b"PK\3\4"), ("N721", "00001.tokens is not a shard")),
    "an empty file": (lambda f: os.truncate(f / "00001.tokens", 0), ("N721",)),
    "nanoGPT's": (lambda f: (f / "00001.tokens").write_bytes(b"\1\0\2\0"), ("N721",)),
    "a later version": (lambda f: damage(f, 8, b"\2"), ("N722", "version 2", "version 1")),
    "cut in the header": (lambda f: os.truncate(f / "00001.tokens", 100), ("N723", "100 bytes")),
    "cut short": (lambda f: os.truncate(f / "00001.tokens", 300), ("N723", "300 bytes where its header says 456")),
    "too long": (lambda f: damage(f, 456, b"xx"), ("N723", "too long")),
    "a bit of the header": (lambda f: damage(f, 16, b"\xff"), ("N724", "header")),
    "a bit of the zeros": (lambda f: damage(f, 200, b"\1"), ("N724", "header")),
    "a bit of the tokens": (lambda f: damage(f, HEADER_BYTES + 17, b"\xff"), ("N724", "tokens", "00001")),
    "an odd size of ids": (lambda f: rewrite(f, item_bytes=3, n_tokens=0), ("N724",)),
    "a missing shard": (lambda f: (f / "00001.tokens").unlink(), ("N729", "1 of 3", "00001.tokens")),
    "the last is missing": (lambda f: (f / "00002.tokens").unlink(), ("N729", "1 of 3", "00002.tokens")),
    "another name": (lambda f: (f / "00001.tokens").rename(f / "00007.tokens"), ("N729", "it is number 1")),
    "of another corpus": (lambda f: rewrite(f, corpus_fingerprint=bytes(32)), ("N729", "corpus fingerprint")),
    "of another tokenizer": (lambda f: rewrite(f, tokenizer_hash=bytes(32)), ("N729", "tokenizer hash")),
}


@pytest.mark.parametrize(("spoil", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(folder: Path, refused, spoil: Callable[[Path], object], message: tuple[str, ...]) -> None:
    open_shards(folder)
    spoil(folder)
    with refused(*message):
        open_shards(folder)


@given(at=st.integers(0, 455), bit=st.integers(0, 7))
def test_every_bit_is_checked(tmp_path_factory: pytest.TempPathFactory, byte: Tokenizer, at: int, bit: int) -> None:
    store, _ = sliced(tmp_path_factory, byte)
    path = store.directory / "00001.tokens"
    whole = path.read_bytes()
    at %= len(whole)
    damage(store.directory, at, bytes([whole[at] ^ 1 << bit]))
    try:
        with pytest.raises(NeuralError) as raised:
            open_shards(store.directory)
        assert raised.value.diagnostics[0].code in ("N721", "N722", "N723", "N724")
    finally:
        damage(store.directory, at, whole[at : at + 1])


def test_another_tokenizer(folder: Path, refused, gpt2: Tokenizer) -> None:
    with refused("N725", gpt2.hash[:16]):
        open_shards(folder, gpt2.hash)


def test_no_end_of_text(tmp_path: Path, refused) -> None:
    (tmp_path / "a.txt").write_text("abc")
    tokenizer = load_tokenizer("char", corpus=open_corpus("a.txt", base=tmp_path))
    with refused("N711", "end-of-text"):
        written(tmp_path, tokenizer, '{"text": "a"}\n{"text": "b"}', "a.jsonl")
    assert not (tmp_path / "shards").exists()


def test_ids_outside_the_vocabulary(tmp_path: Path, refused) -> None:
    class Lying(Tokenizer):
        vocab_size = 100

    with refused("N726", "the id 122", "100 tokens"):
        written(tmp_path, Lying(load_tokenizer("byte").layout, "a test"), "xyz")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_in_use(folder: Path, byte: Tokenizer, refused) -> None:
    with refused("N727", "already holds token shards"):
        written(folder.parent, byte, "x")
    with refused("N727", "is not empty"):
        write_shards(open_corpus(folder.parent / "a.txt"), byte, folder.parent, progress=False)
    with refused("N727", "is a file"):
        write_shards(open_corpus(folder.parent / "a.txt"), byte, folder.parent / "a.txt", progress=False)


def test_an_empty_folder_is_filled(tmp_path: Path, byte: Tokenizer) -> None:
    (tmp_path / "shards").mkdir()
    assert written(tmp_path, byte, "abc").n_tokens == 3


def test_a_mistake_at_the_end_leaves_nothing(tmp_path: Path, byte: Tokenizer, refused) -> None:
    with refused("N704"):
        written(tmp_path, byte, b"x" * 5_000_000 + b"\xff", shard_tokens=1_000_000)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, byte: Tokenizer, monkeypatch) -> None:
    def interrupt(self: Tokenizer, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tokenizer, "save", interrupt)  # after the shards, before the rename
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, byte, "abc")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


SLOWLY = """if True:
    import sys
    from neural.data.corpus import Corpus, open_corpus
    from neural.data.shards import write_shards
    from neural.data.tokenizers import load_tokenizer, Tokenizer

    def hang(self, path):
        print("written", flush=True)
        sys.stdin.read()

    Tokenizer.save = hang
    write_shards(open_corpus(sys.argv[1]), load_tokenizer("byte"), sys.argv[2], progress=False)
"""


def test_a_killed_preparation(tmp_path: Path, byte: Tokenizer) -> None:
    """No shards, and what it left is removed by the next; but not while it is alive."""
    (tmp_path / "a.txt").write_text("abc")
    command = [sys.executable, "-c", SLOWLY, str(tmp_path / "a.txt"), str(tmp_path / "shards")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        (left,) = tmp_path.glob(".shards.partial-*")
        other = write_shards(open_corpus(tmp_path / "a.txt"), byte, tmp_path / "shards", progress=False)
        assert other.n_tokens == 3 and left.exists()
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    (tmp_path / "shards").rename(tmp_path / "first")
    write_shards(open_corpus(tmp_path / "a.txt"), byte, tmp_path / "shards", progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "first", "shards"]


def test_the_system_refuses_to_write(tmp_path: Path, speech: str, python) -> None:
    """A limit on the size of files stands for a full disk: a real error from a real write."""
    (tmp_path / "a.txt").write_text(speech)
    program = """if True:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        from neural.data.corpus import open_corpus
        from neural.data.shards import write_shards
        from neural.data.tokenizers import load_tokenizer
        write_shards(open_corpus("a.txt"), load_tokenizer("byte"), "new/shards", progress=False)"""
    said = python(program, cwd=tmp_path).stderr
    assert "N728: the shards could not be written to new/shards: File too large" in said
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk(tmp_path: Path, byte: Tokenizer, speech: str, refused) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (tmp_path / "a.txt").write_text(speech)
        with refused("N728", "No space left on device", "2 bytes each"):
            write_shards(open_corpus(tmp_path / "a.txt"), byte, disk / "shards", progress=False)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(("name", "megabytes"), [("byte", 38), ("gpt2", 20)])
def test_memory_is_bounded(tmp_path: Path, python, name: str, megabytes: int) -> None:
    """Many megabytes more of text take no more memory."""
    program = """if True:
        import resource, sys
        from neural.data.corpus import open_corpus
        from neural.data.shards import write_shards
        from neural.data.tokenizers import load_tokenizer
        tokenizer = load_tokenizer(sys.argv[2])
        store = write_shards(open_corpus(sys.argv[1]), tokenizer, sys.argv[3], progress=False, shard_tokens=1 << 22)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
    megabyte = ("All the world's a stage, and all the men and women merely players.\n" * 15_000).encode()
    peaks = []
    for size in (8, megabytes):
        with (tmp_path / "a.txt").open("wb") as file:
            for _ in range(size):
                file.write(megabyte)
        peaks.append(int(python(program, "a.txt", name, str(size), cwd=tmp_path).stdout))
    assert peaks[1] - peaks[0] < 30_000  # kilobytes; the text alone would be more
