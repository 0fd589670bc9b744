"""Tokenizers on disk: a tokenizer.json, or the two files of a BPE as OpenAI and Hugging Face have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from neural.data.tokenizers.checking import malformed
from neural.data.tokenizers.layout import EOT, Layout, byte_level_bpe
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest

LARGEST_FILE = 1 << 28  # bytes; the largest in use have some 33 MB
PAIRS_OF_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def read_tokenizer(path: Path) -> tuple[Layout, Path]:
    """What a tokenizer.json, or a folder with one or with a pair of BPE files, holds; and which file it was.

    NeuralError: N751 (nothing there), N752 (no tokenizer in it), N753 (far too large).
    """
    if path.is_dir():
        whole = path / "tokenizer.json"
        if whole.is_file():
            return _read_json(whole), whole
        pair = find_pair(path)
        if pair is None:
            holds = sorted(entry.name for entry in path.iterdir())[:12]
            fail(
                "N751",
                f"the folder {path} holds no tokenizer",
                notes=(f"it holds: {', '.join(holds)}" if holds else "it is empty",),
                hint="a tokenizer is a tokenizer.json, or vocab.json beside merges.txt",
            )
        return read_pair(*pair), pair[0]
    if not path.exists():
        _missing(path)
    return _read_json(path), path


def find_pair(folder: Path) -> tuple[Path, Path] | None:
    """The vocabulary and the merges of a BPE, if the folder has both."""
    pairs = ((folder / vocabulary, folder / merges) for vocabulary, merges in PAIRS_OF_FILES)
    return next((pair for pair in pairs if all(file.is_file() for file in pair)), None)


def read_pair(vocabulary_file: Path, merges_file: Path) -> Layout:
    """A byte-level BPE of the kind of GPT-2. NeuralError N752, N753."""
    vocabulary = _read_json(vocabulary_file)
    if not isinstance(vocabulary, dict):
        malformed(str(vocabulary_file), "it has no tokens and ids")
    merges = []
    for number, line in enumerate(_read(merges_file).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2:
            fail("N752", f"{merges_file}:{number}: {line[:40]!r} is not a pair of tokens")
        merges.append(pair)
    return byte_level_bpe(vocabulary, merges, {EOT: vocabulary[EOT]} if EOT in vocabulary else {})


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except json.JSONDecodeError as error:
        fail("N752", f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except (ValueError, RecursionError):  # an integer of thousands of digits; brackets thousands deep
        fail("N752", f"{path} is not a tokenizer: a number or nesting beyond all bounds")


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            fail("N753", f"{path} has {size:,} bytes; a tokenizer has at most {LARGEST_FILE:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fail("N752", f"{path} is not a tokenizer: it is not UTF-8 (byte {error.start:,})")
    except OSError as error:
        fail("N751", f"{path} cannot be read: {error.strerror}")


def _missing(path: Path) -> NoReturn:
    folder = path.parent
    near = nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else None
    hint = f"did you mean {near}?" if near else 'train one: neural tokenizer train corpus.txt; or use "gpt2"'
    fail("N751", f"no tokenizer at {path}", hint=hint if folder.is_dir() else f"there is no folder {folder} either")
