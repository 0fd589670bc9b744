"""Documents that stand both in the training text and in what is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neural.data.shards import TokenStore
from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import Diagnostic, Severity
from neural.training.data import TrainingData

READ_TOKENS = 1 << 22
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Leakage:
    """Whole documents on the held-out side that stand, token for token, on the training side too."""

    documents: int
    held_out: int  # whole documents on that side
    first: range  # where the first of them is held out


def find_leakage(data: TrainingData, end_of_text: int | None) -> Leakage | None:
    """None where documents are not told apart, nothing is held out, or no document is on both sides.

    Reads all tokens once; memory grows with the number of documents that are held out. The document that the split
    cuts is on both sides by design and does not count.
    """
    if end_of_text is None or not data.held_out or data.store.n_documents < 2:
        return None
    cut = data.held_out.start
    held_out: dict[bytes, range] = {}
    count = 0
    for place, digest in _documents(data.store, _next_document(data.store, cut, end_of_text), end_of_text):
        held_out.setdefault(digest, place)
        count += 1
    shared: dict[bytes, range] = {}
    for place, digest in _documents(data.store, 0, end_of_text, stop=cut):
        if place.stop <= cut and digest in held_out:
            shared[digest] = held_out[digest]
    if not shared:
        return None
    return Leakage(len(shared), count, min(shared.values(), key=lambda place: place.start))


def leakage_warning(data: TrainingData, tokenizer: Tokenizer) -> Diagnostic | None:
    """A warning N835 for documents on both sides."""
    found = find_leakage(data, tokenizer.eot_id)
    if found is None:
        return None
    text = " ".join(
        tokenizer.decode(data.store[found.first.start : found.first.stop][:SHOWN_CHARACTERS].tolist()).split()
    )
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
    were, have = ("document", "stands") if found.documents == 1 else ("documents", "stand")
    return Diagnostic(
        "N835",
        f"{found.documents:,} {were} of the {found.held_out:,} held out {have} in the training text too",
        notes=(f"the first, {len(found.first):,} tokens at token {found.first.start:,}: {shown!r}",),
        hint="the validation loss will look better than it is: remove the duplicates from the text",
        severity=Severity.WARNING,
    )


def _next_document(store: TokenStore, start: int, end_of_text: int) -> int:
    """Where the first document that begins at `start` or after it begins; the store's end if none does."""
    if start == 0:
        return 0
    for at in range(start - 1, len(store), READ_TOKENS):
        ends = np.flatnonzero(store[at : at + READ_TOKENS] == end_of_text)
        if ends.size:
            return at + int(ends[0]) + 1
    return len(store)


def _documents(
    store: TokenStore, start: int, end_of_text: int, stop: int | None = None
) -> Iterator[tuple[range, bytes]]:
    """Place and digest of the documents that are not empty, from `start` on to the one that holds token `stop`."""
    begin, digest = start, hashlib.blake2b(digest_size=16)
    for at in range(start, len(store), READ_TOKENS):
        ids = store[at : at + READ_TOKENS]
        done = 0
        for end in np.flatnonzero(ids == end_of_text).tolist():
            digest.update(ids[done:end].tobytes())
            if at + end > begin:
                yield range(begin, at + end), digest.digest()
            begin, done, digest = at + end + 1, end + 1, hashlib.blake2b(digest_size=16)
            if stop is not None and begin >= stop:
                return
        digest.update(ids[done:].tobytes())
    if begin < len(store):
        yield range(begin, len(store)), digest.digest()
