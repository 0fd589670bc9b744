"""One shard on disk: a header of 256 bytes, then the ids, little-endian.

offset  bytes  field
     0      8  magic, "\\x93NEURTOK"
     8      4  version of the format, 1
    12      4  bytes of an id: 2 (uint16) or 4 (uint32)
    16      8  vocabulary size
    24      8  number of ids
    32      8  bytes of UTF-8 that the ids stand for
    40      8  documents that begin in this shard
    48      4  index of the shard, from 0
    52      4  number of shards
    56     32  SHA-256 of the tokenizer (`Tokenizer.hash`)
    88     32  SHA-256 of the corpus (`Corpus.fingerprint`)
   120     32  BLAKE2b of the ids as they stand in the file
   152    100  zero
   252      4  CRC-32 of the 252 bytes before
"""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural.diagnostics.diagnostic import fail

MAGIC = b"\x93NEURTOK"
VERSION = 1
HEADER_BYTES = 256
DIGEST_BYTES = 32
_READ_BYTES = 1 << 22
_FIELDS = struct.Struct("<8sIIQQQQII32s32s32s100xI")
_DAMAGED = "make it again: neural data prepare"


@dataclass(frozen=True)
class Header:
    """What a shard says of itself. The hashes are raw bytes."""

    item_bytes: int
    vocab_size: int
    n_tokens: int
    n_bytes: int
    n_documents: int
    index: int
    n_shards: int
    tokenizer_hash: bytes
    corpus_fingerprint: bytes
    checksum: bytes

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"<u{self.item_bytes}")

    def pack(self) -> bytes:
        """The header's 256 bytes."""
        values = (
            *(MAGIC, VERSION, self.item_bytes, self.vocab_size, self.n_tokens, self.n_bytes, self.n_documents),
            *(self.index, self.n_shards, self.tokenizer_hash, self.corpus_fingerprint, self.checksum),
        )
        body = _FIELDS.pack(*values, 0)[:-4]
        return body + struct.pack("<I", zlib.crc32(body))


def read_header(path: Path) -> Header:
    """The header of a shard whose size agrees with it.

    NeuralError: N720 (not to be read), N721 (another kind of file), N722 (another version), N723 (cut short, or too
    long), N724 (damaged).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(HEADER_BYTES)
    except OSError as error:
        fail("N720", f"{path} cannot be read: {error.strerror}")
    if not data.startswith(MAGIC):
        fail("N721", f"{path} is not a shard of tokens", hint="shards are made by: neural data prepare")
    if len(data) < HEADER_BYTES:
        fail("N723", f"{path} is cut short: {len(data)} bytes, less than its header", hint=_DAMAGED)
    _, version, *values, crc = _FIELDS.unpack(data)
    if version != VERSION:
        fail(
            "N722",
            f"{path} has version {version} of the format, and this program reads version {VERSION}",
            hint="make it again with this version: neural data prepare",
        )
    header = Header(*values)
    if zlib.crc32(data[:-4]) != crc or header.item_bytes not in (2, 4):
        fail("N724", f"{path} is damaged: its header does not agree with its checksum", hint=_DAMAGED)
    needed = HEADER_BYTES + header.n_tokens * header.item_bytes
    if size != needed:
        what = "cut short" if size < needed else "too long"
        fail("N723", f"{path} is {what}: {size:,} bytes where its header says {needed:,}", hint=_DAMAGED)
    return header


def check_ids(path: Path, header: Header) -> None:
    """Read all ids and hold them against the header's checksum and vocabulary. NeuralError N724, N834."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    largest = -1
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while data := file.read(_READ_BYTES):
            digest.update(data)
            largest = max(largest, int(np.frombuffer(data, header.dtype).max()))
    if digest.digest() != header.checksum:
        fail("N724", f"{path} is damaged: its tokens do not agree with their checksum", hint=_DAMAGED)
    if largest >= header.vocab_size:
        title = f"{path} holds the id {largest:,}, and its vocabulary has {header.vocab_size:,}"
        fail("N834", title, hint=_DAMAGED)


class Ids:
    """The ids of a shard, uint16 or uint32, read from its file when they are asked for.

    Not mapped: of a large text every page that was looked at would count as the process's memory, and they are ever
    more, as sequences come in a random order. A read is some microseconds. The file stays open.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._dtype = path, header.dtype
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids [start, stop) of those that it has. NeuralError N723 where the file has been cut since."""
        found = np.empty(stop - start, self._dtype)
        left, at = memoryview(found).cast("B"), HEADER_BYTES + start * self._dtype.itemsize
        while left:
            count = os.preadv(self._file, [left], at)
            if not count:
                fail("N723", f"{self._path} was cut short while it was read", hint=_DAMAGED)
            left, at = left[count:], at + count
        return found
