"""Token shards: a corpus, tokenised once, that the trainer reads a sequence at a time.

A folder of files `00000.tokens`, … of one corpus under one tokenizer, and that `tokenizer.json`. Documents are
separated by the tokenizer's end-of-text: it stands between two documents, neither before the first nor after the last.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np

from neural.data.corpus import SHARD_SUFFIX, Corpus
from neural.data.durable import fresh_folder
from neural.data.shard_file import DIGEST_BYTES, Header, Ids, check_ids, read_header
from neural.data.shard_writing import SHARD_TOKENS, tokenize
from neural.data.tokenizers.tokenizer import Tokenizer
from neural.diagnostics.diagnostic import fail


class TokenStore:
    """The ids of a folder of shards as one sequence. Make one with `open_shards` or `write_shards`."""

    def __init__(self, directory: Path, headers: Sequence[Header]) -> None:
        self.directory = directory
        self.headers = tuple(headers)
        self.n_tokens = sum(header.n_tokens for header in headers)
        self.n_bytes = sum(header.n_bytes for header in headers)
        self.n_documents = sum(header.n_documents for header in headers)
        self.vocab_size = headers[0].vocab_size
        self.dtype = headers[0].dtype
        self.tokenizer_hash = headers[0].tokenizer_hash.hex()
        self.corpus_fingerprint = headers[0].corpus_fingerprint.hex()
        self._shards = [Ids(_shard(directory, header.index), header) for header in headers]
        self._starts = np.cumsum([0, *(header.n_tokens for header in headers)]).tolist()

    @property
    def fingerprint(self) -> str:
        """A hash (hex) of the tokenizer, all ids, and their division into shards: what a run binds itself to."""
        digest = hashlib.blake2b(self.headers[0].tokenizer_hash, digest_size=DIGEST_BYTES)
        for header in self.headers:
            digest.update(header.checksum)
        return digest.hexdigest()

    def __len__(self) -> int:
        return self.n_tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        """The ids [a:b], uint16 or uint32, a copy. Bounds as those of a list; no steps."""
        start, stop, step = part.indices(self.n_tokens)
        if step != 1:
            raise ValueError("a store is read without steps")
        if start >= stop:
            return np.empty(0, self.dtype)
        first, last = bisect_right(self._starts, start) - 1, bisect_right(self._starts, stop - 1) - 1
        parts = [
            self._shards[i].read(max(start - self._starts[i], 0), min(stop, self._starts[i + 1]) - self._starts[i])
            for i in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def write_shards(
    corpus: Corpus, tokenizer: Tokenizer, directory: Path | str, *, progress: bool, shard_tokens: int = SHARD_TOKENS
) -> TokenStore:
    """Tokenise a corpus on all cores into a folder that appears whole or not at all.

    `directory` must not exist, or be empty. `progress`: a bar on stderr. The shards, of `shard_tokens` ids each, do
    not depend on the number of cores. Memory is bounded whatever the size of the corpus, but by the longest document
    where the tokenizer is not `cuts_exactly`.
    NeuralError: N711 (documents, and no end-of-text), N726 (an id outside the vocabulary), N727 (the folder is in
    use), N728 (the disk is full, or the system refuses), and those of the corpus and the tokenizer.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        fail("N727", f"{directory} is a file, and the shards need a folder", hint="give another folder")
    if directory.exists() and any(directory.iterdir()):
        what = "already holds token shards" if is_store(directory) else "is not empty"
        fail("N727", f"the folder {directory} {what}", hint="give another folder, or remove this one")
    try:
        with fresh_folder(directory) as folder:
            headers = tokenize(corpus, tokenizer, folder, progress=progress, shard_tokens=shard_tokens)
    except OSError as error:
        _cannot_write(directory, error)
    return TokenStore(directory, headers)


def open_shards(directory: Path | str, tokenizer_hash: str | None = None) -> TokenStore:
    """The shards of a folder, with all they say of themselves checked, every id's checksum too.

    `tokenizer_hash`: the `Tokenizer.hash` that they must have been made with.
    NeuralError: N720 (no shards there), N721 to N724 (a file that is no shard, of another version, cut short,
    damaged), N725 (another tokenizer), N729 (a shard is missing, or belongs to others), N834 (an id outside the
    vocabulary).
    """
    directory = Path(directory)
    files = sorted(directory.glob(f"*{SHARD_SUFFIX}")) if directory.is_dir() else []
    if not files:
        what = "holds no token shards" if directory.is_dir() else "is not a folder of token shards"
        fail("N720", f"{directory} {what}", hint="make them: neural data prepare CORPUS --tokenizer gpt2 --output DIR")
    headers = [read_header(file) for file in files]
    if tokenizer_hash is not None:
        refuse_other_tokenizer(directory, headers[0].tokenizer_hash.hex(), tokenizer_hash)
    _check_family(directory, files, headers)
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        list(pool.map(check_ids, files, headers))
    return TokenStore(directory, headers)


def refuse_other_tokenizer(directory: Path, found: str, wanted: str) -> None:
    """NeuralError N725 unless the two hashes (hex) are one."""
    if found != wanted:
        fail(
            "N725",
            f"the shards in {directory} were made with another tokenizer",
            notes=(f"theirs has the hash {found[:16]}…, the one asked for {wanted[:16]}…",),
            hint="use the tokenizer.json beside the shards, or make the shards again with the other tokenizer",
        )


def is_store(path: Path) -> bool:
    """Whether the path is a folder with shards in it."""
    return path.is_dir() and any(path.glob(f"*{SHARD_SUFFIX}"))


def _check_family(directory: Path, files: list[Path], headers: list[Header]) -> None:
    """All shards of one preparation, and each of them."""
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        same = ("item_bytes", "vocab_size", "n_shards", "tokenizer_hash", "corpus_fingerprint")
        other = next((name for name in same if getattr(header, name) != getattr(first, name)), None)
        if other or file != _shard(directory, header.index):
            why = f"its {other.replace('_', ' ')} differs" if other else f"it is number {header.index}"
            fail("N729", f"{file} does not belong to the shards beside it: {why}", hint="make them again")
    missing = sorted(set(range(first.n_shards)) - {header.index for header in headers})
    if missing:
        names = ", ".join(_shard(directory, i).name for i in missing[:4])
        fail("N729", f"{len(missing)} of {first.n_shards} shards are missing from {directory}: {names}")


def _shard(directory: Path, index: int) -> Path:
    return directory / f"{index:05}{SHARD_SUFFIX}"


def _cannot_write(directory: Path, error: OSError) -> NoReturn:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    parent = next((folder for folder in directory.absolute().parents if folder.exists()), Path("/"))
    fail(
        "N728",
        f"the shards could not be written to {directory}: {error.strerror}",
        notes=(f"free in {parent}: {shutil.disk_usage(parent).free:,} bytes; nothing half-written was left",),
        hint="free some space or give a folder on another disk; ids take 2 bytes each, 4 above 65,536 tokens"
        if full
        else None,
    )
