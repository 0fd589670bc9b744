"""Tokenising a corpus into shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from neural.data.corpus import SHARD_SUFFIX, Advance, Corpus, Piece
from neural.data.progress import byte_progress
from neural.data.shard_file import DIGEST_BYTES, HEADER_BYTES, Header
from neural.data.text import PIECE_CHARACTERS
from neural.data.tokenizers.tokenizer import Tokenizer
from neural.diagnostics.diagnostic import fail

SHARD_TOKENS = 100_000_000  # ids of a shard: 200 MB
BATCH_CHARACTERS = 1 << 20  # given to the tokenizer at once: 64 pieces to share among the cores, some 100 MB of memory


def tokenize(corpus: Corpus, tokenizer: Tokenizer, folder: Path, *, progress: bool, shard_tokens: int) -> list[Header]:
    """Write shards and tokenizer.json into an empty folder, flushed to the disk. OSError as the system gives it."""
    with (
        _Writer(corpus, tokenizer, folder, shard_tokens) as writer,
        byte_progress("tokenising", corpus.n_bytes, enabled=progress) as advance,
    ):
        for batch in _batches(corpus, tokenizer, advance):
            for piece, ids in zip(batch, tokenizer.encode_batch([piece.text for piece in batch]), strict=True):
                if piece.first:
                    writer.begin_document()
                writer.add(ids)
    headers = writer.finish()
    if not headers:
        fail("N702", f"{corpus.spec} gave no tokens: the tokenizer from {tokenizer.source} knows none of its text")
    tokenizer.save(folder / "tokenizer.json")
    return headers


def _batches(corpus: Corpus, tokenizer: Tokenizer, advance: Advance) -> Iterator[list[Piece]]:
    """Pieces in order, as many together as make BATCH_CHARACTERS."""
    batch: list[Piece] = []
    size = 0
    for piece in _pieces(corpus, tokenizer, advance):
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(corpus: Corpus, tokenizer: Tokenizer, advance: Advance) -> Iterator[Piece]:
    """Pieces whose ids are those of the documents: cut where that is exact, else documents whole."""
    if tokenizer.cuts_exactly:
        return corpus.pieces(size=PIECE_CHARACTERS, advance=advance)
    return (Piece(document, first=True) for document in corpus.documents(advance=advance))


class _Writer:
    """Ids into files of bounded size."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, folder: Path, shard_tokens: int) -> None:
        self._tokenizer, self._folder, self._shard_tokens = tokenizer, folder, shard_tokens
        self._corpus_fingerprint = bytes.fromhex(corpus.fingerprint)
        self._item_bytes = 2 if tokenizer.vocab_size <= 1 << 16 else 4
        self._headers: list[Header] = []
        self._file: BinaryIO | None = None
        self._documents = self._beginning = 0
        self._start_counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def begin_document(self) -> None:
        """Separate a document from the one before it."""
        self._documents += 1
        if self._documents > 1:
            if self._tokenizer.eot_id is None:
                fail(
                    "N711",
                    "the corpus has several documents, and the tokenizer has no end-of-text to stand between them",
                    hint='join them into one file, learn "char" from all of them, or use "gpt2" or "byte"',
                )
            self.add(np.array([self._tokenizer.eot_id], dtype=np.uint32))
        self._beginning = 1

    def add(self, ids: np.ndarray) -> None:
        """Ids in order, uint32. NeuralError N726 for one outside the vocabulary."""
        if ids.size and int(ids.max()) >= self._tokenizer.vocab_size:
            size = self._tokenizer.vocab_size
            fail("N726", f"the tokenizer gave the id {int(ids.max())}, and its vocabulary has {size:,} tokens")
        while ids.size:
            room = self._shard_tokens - self._counts["n_tokens"]
            if not room:
                self._close()
                continue
            self._write(ids[:room])
            ids = ids[room:]

    def finish(self) -> list[Header]:
        """Close the last shard, and give each its header, which says how many there are."""
        self._close()
        finished = []
        for header in self._headers:
            header = Header(**{**vars(header), "n_shards": len(self._headers)})
            with self._path(header.index).open("r+b") as file:
                file.write(header.pack())
                file.flush()
                os.fsync(file.fileno())
            finished.append(header)
        return finished

    def _start_counts(self) -> None:
        self._counts = {"n_tokens": 0, "n_bytes": 0, "n_documents": 0}
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def _write(self, ids: np.ndarray) -> None:
        if self._file is None:
            self._file = self._path(len(self._headers)).open("wb")
            self._file.write(bytes(HEADER_BYTES))
        data = ids.astype(f"<u{self._item_bytes}").tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._counts["n_tokens"] += ids.size
        self._counts["n_documents"] += self._beginning
        self._beginning = 0
        self._counts["n_bytes"] += int(self._tokenizer.byte_lengths[ids].sum(dtype=np.int64))

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        header = Header(
            item_bytes=self._item_bytes,
            vocab_size=self._tokenizer.vocab_size,
            index=len(self._headers),
            n_shards=0,
            tokenizer_hash=bytes.fromhex(self._tokenizer.hash),
            corpus_fingerprint=self._corpus_fingerprint,
            checksum=self._digest.digest(),
            **self._counts,
        )
        self._headers.append(header)
        self._start_counts()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:05}{SHARD_SUFFIX}"
