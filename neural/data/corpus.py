"""Where text comes from: a file, a folder, a pattern, JSON lines, or a corpus that has a name.

A text file is one document, each line of JSON lines is one. A file of any size is read in pieces. Line ends stay as
they are (so CRLF reaches the model as CRLF); a byte order mark is left out.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from neural.data.jsonlines import read_json_lines
from neural.data.plays import shakespeare
from neural.data.text import PIECE_CHARACTERS, cut, open_bytes, read_blocks, read_text
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest

NAMED: dict[str, Callable[[], str]] = {"shakespeare": shakespeare}
"""Corpora that a name stands for. Each gives one document."""

TEXT_SUFFIXES = (".txt", ".text", ".md")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
SHARD_SUFFIX = ".tokens"

Advance = Callable[[int], None]


class Piece(NamedTuple):
    """A stretch of a document. `first`: a document begins with it."""

    text: str
    first: bool


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order. Make one with `open_corpus`."""

    spec: str
    files: tuple[Path, ...]
    text_field: str = "text"

    @cached_property
    def _named(self) -> str:
        return NAMED[self.spec]()

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of the files (of JSON lines with all their fields)."""
        return sum(file.stat().st_size for file in self.files) if self.files else len(self._named.encode())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the documents are made from: contents, their order, and the JSON field. Reads all."""
        digest = hashlib.sha256()
        if not self.files:
            digest.update(self._named.encode())
        for file in self.files:
            content = hashlib.sha256()
            for data in read_blocks(file):
                content.update(data)
            kind = f"lines:{self.text_field}" if _is_json_lines(file) else "text"
            digest.update(f"{kind}:{content.hexdigest()}\n".encode())
        return digest.hexdigest()

    def documents(self, *, advance: Advance = lambda _: None) -> Iterator[str]:
        """Each document whole. `advance` is called with the bytes read. NeuralError as `pieces` raises it."""
        parts: list[str] = []
        for piece in self.pieces(size=None, advance=advance):
            if piece.first and parts:
                yield "".join(parts)
                parts = []
            parts.append(piece.text)
        yield "".join(parts)

    def pieces(self, *, size: int | None = PIECE_CHARACTERS, advance: Advance = lambda _: None) -> Iterator[Piece]:
        """All text in order, in pieces of about `size` characters cut as `neural.data.text.cut` says.

        None for size: in blocks as they are read, cut anywhere. Documents without text are passed over: they have no
        tokens. `advance` is called with the bytes read. NeuralError: N702 (nothing but white space), and what
        `read_text` and `read_json_lines` raise.
        """
        blank = True
        for document in self._documents(advance):
            first = True
            for text in cut(document, size) if size else document:
                if text:
                    blank = blank and text.isspace()
                    yield Piece(text, first)
                    first = False
        if blank:
            fail("N702", f"{self.spec} holds no text, only white space or empty documents", hint="give it some text")

    def _documents(self, advance: Advance) -> Iterator[Iterable[str]]:
        """Each document as blocks; to be read before the next one is taken."""
        if not self.files:
            advance(self.n_bytes)
            yield (self._named,)
        for file in self.files:
            if _is_json_lines(file):
                yield from ((text,) for text in read_json_lines(file, self.text_field, advance))
            else:
                yield read_text(file, advance)


def open_corpus(spec: str | Path, *, base: Path | str = Path(), text_field: str = "text") -> Corpus:
    """The corpus that `spec` names: "shakespeare", or a file, a folder or a pattern below `base`.

    Of a folder the files with suffix .txt, .text, .md, .jsonl and .ndjson, at any depth, in the order of their paths;
    names that begin with a dot and linked folders are passed over. .jsonl and .ndjson are JSON lines with the text in
    `text_field`, any other file is text. A file whose name is that of a corpus is "./shakespeare".
    NeuralError: N701 (nothing there), N702 (an empty file), N705 (not to be read), N706 (a folder without text),
    N707 (a pattern without a match), N710 (the package of a named corpus is missing).
    """
    spec = str(spec)
    if spec in NAMED:
        corpus = Corpus(spec, ())
        _ = corpus.n_bytes  # a missing package is said now
        return corpus
    base, inside = Path(base), str(Path(spec).expanduser())
    try:
        files = _files(base, inside)
        empty = next((file for file in files if file.is_file() and not file.stat().st_size), None)
    except OSError as error:
        fail("N705", f"{error.filename or inside} cannot be read: {error.strerror}")
    if empty:
        fail("N702", f"{empty} is empty", hint="give it some text" if len(files) == 1 else "remove it, or fill it")
    for file in files:
        open_bytes(file).close()
    return Corpus(spec, files, text_field)


def _files(base: Path, spec: str) -> tuple[Path, ...]:
    path = base / spec
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and glob.has_magic(spec):
        # Path.glob takes no absolute pattern; `base` may have a bracket in its name, so it is no part of the pattern
        matches = sorted(base / name for name in glob.glob(spec, root_dir=base, recursive=True))  # noqa: PTH207
        files = tuple(match for match in matches if not match.is_dir())
        if not files:
            what = "matches only folders" if matches else "matches no file"
            fail("N707", f"the pattern {spec} {what}", hint=f"relative patterns are looked for in {base.absolute()}")
        return files
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else None
        near = nearest(path.name, [*(names or ()), *NAMED]) or nearest(spec, NAMED)
        hint = "give a file, a folder, a pattern such as 'texts/*.txt', or shakespeare"
        if near:
            hint = f"did you mean {near}?"
        elif names is None:
            hint = f"there is no folder {path.parent} either"
        fail("N701", f"no file or folder {path}", hint=hint)
    return (path,)


def _of_folder(folder: Path) -> tuple[Path, ...]:
    inside = sorted(_walk(folder), key=lambda file: file.relative_to(folder).parts)
    files = tuple(file for file in inside if file.suffix.lower() in (*TEXT_SUFFIXES, *JSON_LINES_SUFFIXES))
    if not files and any(file.suffix == SHARD_SUFFIX for file in inside):
        fail("N706", f"{folder} holds token shards, not text", hint="give the text that they were made from")
    if not files:
        suffixes = sorted({file.suffix or file.name for file in inside})
        fail(
            "N706",
            f"the folder {folder} holds no text",
            notes=(f"it holds: {', '.join(suffixes[:12])}" if suffixes else "it is empty",),
            hint=f"text is {', '.join((*TEXT_SUFFIXES, *JSON_LINES_SUFFIXES))}; or use a pattern: '{folder}/*'",
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """All files at any depth but hidden ones and those in linked folders. OSError for a folder not to be read."""
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():  # a link may lead in circles
            yield from _walk(entry)
        elif entry.is_file():
            yield entry


def _is_json_lines(file: Path) -> bool:
    return file.suffix.lower() in JSON_LINES_SUFFIXES
