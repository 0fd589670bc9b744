"""Reading UTF-8 in blocks of bounded size, and cutting it where no token of GPT-2's pattern reaches across."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from neural.diagnostics.diagnostic import fail

READ_BYTES = 1 << 20
PIECE_CHARACTERS = 1 << 14  # the tokenizers library is fastest on short texts (measured: 16 KB against 64 KB and up)
UNBROKEN_CHARACTERS = 1 << 20

# Places to cut a text, best first. GPT-2's pattern matches runs of one class (letters, numbers, the rest) with at most
# one space before them, and runs of white space: a cut between a class and white space, or between a letter and
# punctuation, is a place where it begins a new match anyway. Later patterns (GPT-4, Llama 3) agree on the first.
_CUTS = (
    re.compile(r"(?<=[^\W_]) (?=[^\W_])"),
    re.compile(r"(?<=\S)[ \t\r\n]"),  # not all of \s, which is wider here than in the tokenizers library
    re.compile(r"(?<=[^\W\d_])[.,;:!?。，、；：！？」』）]"),
)

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, advance: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """The file's text in blocks. A byte order mark is left out; line ends stay as they are.

    Calls `advance` with the number of bytes of each block. NeuralError: N703 (binary), N704 (not UTF-8), N705
    (the system refuses).
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    for data in read_blocks(path):
        refuse_binary(data, offset, path)
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            before = (pending + data)[: error.start].count(b"\n")
            refuse_bytes(path, offset - len(pending) + error.start, line + before, error)
        if offset == 0:
            text = text.removeprefix("\ufeff")
        offset += len(data)
        line += data.count(b"\n")
        if text:
            yield text
        advance(len(data))


def read_blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks, the last of them empty. NeuralError N705 where the system refuses."""
    with open_bytes(path) as file:
        while True:
            try:
                data = file.read(READ_BYTES)
            except OSError as error:
                fail("N705", f"{path} cannot be read: {error.strerror}")
            yield data
            if not data:
                return


def open_bytes(path: Path) -> BinaryIO:
    """The file, opened for reading. NeuralError N705 where the system refuses, or where it is no regular file."""
    try:
        if not path.is_file():
            fail("N705", f"{path} is not a regular file", hint="give a file of text, a folder or a pattern")
        return path.open("rb")
    except OSError as error:
        fail("N705", f"{path} cannot be read: {error.strerror}")


def refuse_binary(data: bytes, offset: int, path: Path) -> None:
    """NeuralError N703 if there is a NUL byte in the block that stands at `offset`."""
    at = data.find(b"\0")
    if at >= 0:
        utf_16 = offset == 0 and data[:2] in _UTF_16
        fail(
            "N703",
            f"{path} is not text: a NUL byte at offset {offset + at:,}",
            hint=f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8.txt"
            if utf_16
            else "give plain text in UTF-8; archives, PDF and office files must be turned into text first",
        )


def refuse_bytes(path: Path, offset: int, line: int, error: UnicodeDecodeError) -> NoReturn:
    """NeuralError N704 for the bytes at `offset` in the file."""
    bad = error.object[error.start : max(error.end, error.start + 1)].hex(" ")
    fail(
        "N704",
        f"{path} is not UTF-8: byte{'s' if ' ' in bad else ''} {bad} at offset {offset:,}, line {line:,}",
        notes=(error.reason,),
        hint=f"convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.txt",
    )


def cut(blocks: Iterable[str], size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """The same text in pieces of about `size` characters, cut so that tokens of the pieces are tokens of the whole.

    Exact for GPT-2's pattern but for one case: a run of over a million characters without white space or
    punctuation (UNBROKEN_CHARACTERS) is cut where it stands, so that memory stays bounded.
    """
    rest = ""
    for block in blocks:
        text = rest + block
        start = 0
        while len(text) - start > size:
            end = _place(text, start, start + size)
            if end is None:
                break
            yield text[start:end]
            start = end
        rest = text[start:]
        if len(rest) >= max(size, UNBROKEN_CHARACTERS):
            yield rest
            rest = ""
    if rest:
        yield rest


def _place(text: str, start: int, end: int) -> int | None:
    """The last good place to cut before `end`, else the first one after it."""
    for near in (max(start + 1, end - 256), start + 1):
        for pattern in _CUTS:
            places = [match.start() for match in pattern.finditer(text, near, end)]
            if places:
                return places[-1]
    found = [match.start() for pattern in _CUTS if (match := pattern.search(text, end))]
    return min(found, default=None)
