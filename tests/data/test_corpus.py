"""Where text comes from: what is read, in what order, in what pieces, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural.data import text as reading
from neural.data.corpus import Corpus, open_corpus
from neural.data.text import cut
from neural.data.tokenizers import Tokenizer


def tree(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def documents(spec: str, base: Path, **options: str) -> list[str]:
    return list(open_corpus(spec, base=base, **options).documents())


READ = {
    "a file": ({"a_txt": "one"}, "a.txt", ["one"]),
    "any suffix": ({"a_py": "one"}, "a.py", ["one"]),
    "line ends as they are": ({"a_txt": "one\r\ntwo\rthree\n"}, "a.txt", ["one\r\ntwo\rthree\n"]),
    "a byte order mark": ({"a_txt": b"\xef\xbb\xbfone \xef\xbb\xbf"}, "a.txt", ["one \ufeff"]),
    "a folder in the order of paths": (
        {"d__b_txt": "2", "d__a_txt": "1", "d__c__a_md": "3", "d___hidden_txt": "no", "d__x_pdf": "no"},
        "d",
        ["1", "2", "3"],
    ),
    "a pattern": ({"b1_txt": "1", "b2_txt": "2", "c_txt": "3"}, "b*.txt", ["1", "2"]),
    "a pattern at any depth": ({"a__b__c_txt": "1", "a__d_txt": "2"}, "**/*.txt", ["1", "2"]),
    "JSON lines": (
        {"a_jsonl": '{"text": "one"}\n\n{"n": 1, "text": "t\\nwo"}\r\n{"text": ""}'},
        "a.jsonl",
        ["one", "t\nwo"],
    ),
    "JSON lines with a mark": ({"a_ndjson": b'\xef\xbb\xbf{"text": "\xc3\xa9"}'}, "a.ndjson", ["é"]),
    "text and JSON lines": ({"d__a_jsonl": '{"text": "1"}\n{"text": "2"}', "d__b_txt": "3"}, "d", ["1", "2", "3"]),
    "blank among others": ({"d__a_txt": " \n", "d__b_txt": "3"}, "d", [" \n", "3"]),
}


@pytest.mark.parametrize(("files", "spec", "expected"), READ.values(), ids=READ)
def test_read(tmp_path: Path, files: dict[str, str], spec: str, expected: list[str]) -> None:
    assert documents(spec, tree(tmp_path, **files)) == expected


REFUSED = {
    "nothing there": ({"corpus_txt": "x"}, "corpsu.txt", ("N701", "corpsu.txt", "did you mean corpus.txt?")),
    "no folder": ({}, "nix/a.txt", ("N701", "no folder")),
    "a corpus by name": ({}, "shakespere", ("N701", "did you mean shakespeare?")),
    "empty": ({"a_txt": ""}, "a.txt", ("N702", "is empty")),
    "one of many empty": ({"d__a_txt": "", "d__b_txt": "x"}, "d", ("N702", "a.txt", "remove it")),
    "white space": ({"a_txt": " \n\t\u3000\n"}, "a.txt", ("N702", "white space")),
    "only a mark": ({"a_txt": b"\xef\xbb\xbf"}, "a.txt", ("N702",)),
    "empty texts": ({"a_jsonl": '{"text": ""}\n{"text": " "}'}, "a.jsonl", ("N702",)),
    "binary": ({"a_txt": b"abc\0def"}, "a.txt", ("N703", "offset 3")),
    "UTF-16": ({"a_txt": "abc".encode("utf-16")}, "a.txt", ("N703", "iconv -f UTF-16 -t UTF-8 a.txt")),
    "binary lines": ({"a_jsonl": b'{"text": "a"}\n{"te\0"}'}, "a.jsonl", ("N703", "offset 18")),
    "bad UTF-8": ({"a_txt": b"one\ntw\xff"}, "a.txt", ("N704", "byte ff", "offset 6", "line 2", "WINDOWS-1252")),
    "cut UTF-8": ({"a_txt": "one\n\u20ac".encode()[:-1]}, "a.txt", ("N704", "bytes e2 82 at offset 4", "line 2")),
    "bad UTF-8 in lines": ({"a_jsonl": b'{"text": "a"}\n{"text": "\xe9"}'}, "a.jsonl", ("N704", "offset 24", "line 2")),
    "no text in a folder": ({"d__a_pdf": "x", "d__b_exe": "x"}, "d", ("N706", ".exe, .pdf", "d/*")),
    "an empty folder": ({"d___keep": ""}, "d", ("N706", "it is empty")),
    "shards": ({"d__00000_tokens": "x"}, "d", ("N706", "token shards")),
    "no match": ({"a_txt": "x"}, "*.md", ("N707", "*.md", "matches no file")),
    "only folders match": ({"d__a_txt": "x"}, "d*", ("N707", "only folders")),
    "not JSON": ({"a_jsonl": '{"text": "a"}\n{"text": }'}, "a.jsonl", ("N708", "a.jsonl:2", "column 10")),
    "a list": ({"a_jsonl": '["text"]'}, "a.jsonl", ("N708", "a.jsonl:1", "a list", '{"text": "…"}')),
    "a long number": ({"a_jsonl": '{"text": ' + "1" * 5000 + "}"}, "a.jsonl", ("N708", "a.jsonl:1")),
    "deep brackets": ({"a_jsonl": "[" * 100_000}, "a.jsonl", ("N708", "a.jsonl:1")),
    "half a pair": ({"a_jsonl": '{"text": "\\ud83d"}'}, "a.jsonl", ("N708", "\\ud83d", "surrogate")),
    "no field": ({"a_jsonl": '{"txt": "a", "id": 1}'}, "a.jsonl", ("N709", "id, txt", "--text-field txt")),
    "no string": ({"a_jsonl": '{"text": 1}'}, "a.jsonl", ("N709", "a number, not a string")),
}


@pytest.mark.parametrize(("files", "spec", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, refused, files: dict[str, str], spec: str, message: tuple[str, ...]) -> None:
    tree(tmp_path, **files)
    with refused(*message):
        documents(spec, tmp_path)


def test_another_field(tmp_path: Path) -> None:
    tree(tmp_path, a_jsonl='{"text": "no", "body": "yes"}')
    assert documents("a.jsonl", tmp_path, text_field="body") == ["yes"]


def test_no_regular_file(refused) -> None:
    with refused("N705", "/dev/zero is not a regular file"):
        open_corpus("/dev/zero")


def test_unreadable(tmp_path: Path, python) -> None:
    """In a process of its own, which gives up being root, who may read everything."""
    (tree(tmp_path, a_txt="x") / "a.txt").chmod(0)
    program = """if True:
        import os, sys
        from neural.data.corpus import open_corpus
        if os.geteuid() == 0:
            os.setuid(65534)
        open_corpus(sys.argv[1])"""
    said = python(program, str(tmp_path / "a.txt")).stderr
    assert "N705" in said and said.endswith("cannot be read: Permission denied\n")


def test_a_link_in_a_circle(tmp_path: Path) -> None:
    (tree(tmp_path, d__a_txt="1") / "d" / "again").symlink_to(tmp_path / "d")
    assert documents("d", tmp_path) == ["1"]


def test_a_pattern_below_a_folder_with_brackets(tmp_path: Path) -> None:
    assert documents("*.txt", tree(tmp_path, **{"[x]__a_txt": "1"}) / "[x]") == ["1"]


def test_a_name_and_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "shakespeare").write_text("mine")
    assert documents("./shakespeare", tmp_path) == ["mine"]
    (plays,) = documents("shakespeare", tmp_path)
    assert "ROMEO:" in plays
    assert open_corpus("shakespeare").n_bytes == len(plays.encode())


def test_positions_far_into_a_file(tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets and lines are those of the file, wherever the blocks it is read in happen to end."""
    good = "é\n".encode() * 40
    for size in (7, 8, 9, 1 << 20):
        monkeypatch.setattr(reading, "READ_BYTES", size)
        tree(tmp_path, a_txt=good + b"\xc3(", b_txt=good + b"\0", c_txt=good)
        with refused("N704", "offset 120", "line 41"):
            documents("a.txt", tmp_path)
        with refused("N703", "offset 120"):
            documents("b.txt", tmp_path)
        assert documents("c.txt", tmp_path) == [good.decode()]


def test_fingerprint(tmp_path: Path) -> None:
    tree(tmp_path, a_txt="one", b_txt="two", c__a_txt="one", d_jsonl='{"text": "1", "b": "2"}')

    def fingerprint(spec: str, **options: str) -> str:
        return open_corpus(spec, base=tmp_path, **options).fingerprint

    assert fingerprint("a.txt") == fingerprint("c/a.txt") == fingerprint("c")
    prints = [fingerprint(spec) for spec in ("a.txt", "b.txt", "[ab].txt", "d.jsonl", "shakespeare")]
    assert len({*prints, fingerprint("d.jsonl", text_field="b")}) == 6


def test_advance_counts_every_byte(tmp_path: Path) -> None:
    tree(tmp_path, d__a_txt="one é", d__b_jsonl='{"text": "x"}\n\n{"text": ""}\n')
    for spec in ("d", "shakespeare"):
        corpus, seen = open_corpus(spec, base=tmp_path), []
        list(corpus.pieces(advance=seen.append))
        assert sum(seen) == corpus.n_bytes


ALPHABETS = st.sampled_from(["ab 1.\n", "a'st \t\n", "字。，一 2", "éa\u00a0\u3000 \x1c!\n", " \n", "x"])
TEXTS = ALPHABETS.flatmap(lambda alphabet: st.text(alphabet, max_size=200)) | st.text(max_size=200)


@given(text=TEXTS, size=st.integers(1, 40), block=st.integers(1, 60))
def test_pieces_make_the_text(text: str, size: int, block: int) -> None:
    pieces = list(cut((text[i : i + block] for i in range(0, len(text), block)), size))
    assert "".join(pieces) == text
    assert all(pieces)


@given(text=TEXTS, size=st.integers(1, 40), block=st.integers(1, 60))
def test_tokens_of_pieces_are_tokens_of_the_text(gpt2: Tokenizer, text: str, size: int, block: int) -> None:
    pieces = cut((text[i : i + block] for i in range(0, len(text), block)), size)
    assert [i for piece in pieces for i in gpt2.encode(piece)] == gpt2.encode(text)


def test_pieces_are_about_the_size(speech: str) -> None:
    sizes = [len(piece) for piece in cut([speech], 500)]
    assert max(sizes) <= 500 and min(sizes[:-1]) > 240


def test_no_place_to_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte without a break stays whole; beyond the limit memory counts for more than one token."""
    monkeypatch.setattr(reading, "UNBROKEN_CHARACTERS", 1000)
    assert list(cut(["x" * 600, "x" * 100], 50)) == ["x" * 700]
    assert list(cut(["x" * 600] * 3, 50)) == ["x" * 1200, "x" * 600]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = "All the world's a stage, and all the men and women merely players.\n"
    path = tmp_path / "large.txt"
    with path.open("w") as file:
        for _ in range(30):
            file.write(line * 15_000)
    tracemalloc.start()
    characters = sum(len(piece.text) for piece in open_corpus(path).pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters == path.stat().st_size > 30e6
    assert peak < 10e6


def test_a_corpus_is_a_value() -> None:
    assert Corpus("a", (Path("a"),)) == Corpus("a", (Path("a"),))
