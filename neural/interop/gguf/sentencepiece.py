"""SentencePiece's BPE (Kudo & Richardson 2018), as Llama 2, Mistral and Gemma have it: pieces with scores, `▁` for a
space, and bytes for what no piece has. A tokenizer.json has merges where SentencePiece has scores: the pair goes first
whose piece has the highest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from neural.interop.gguf.documents import Kind

Json = dict[str, Any]

SPACE = "▁"
LONGEST_PIECE = 256  # characters; SentencePiece's own limit is 16
_NO_CUT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}  # Gemma's


def merges_of(tokens: Sequence[str], kinds: Sequence[Kind], scores: Sequence[float]) -> list[list[str]]:
    """Every pair of pieces that makes a piece, the highest score first, and the longest left part first within it."""
    known = set(tokens)
    pieces = [i for i, kind in enumerate(kinds) if kind in (Kind.NORMAL, Kind.USER_DEFINED)]
    return [
        [token[:at], token[at:]]
        for token in (tokens[i] for i in sorted(pieces, key=lambda i: (-scores[i], i)))
        for at in range(len(token) - 1, 0, -1)
        if token[:at] in known and token[at:] in known
    ]


def scores_of(tokens: Sequence[str], kinds: Sequence[Kind], merges: Iterable[Sequence[str]]) -> list[float] | None:
    """Scores that give the merges; None if none do: a piece's pairs do not stand together, or are not all there."""
    order = [piece for piece, _ in groupby(left + right for left, right in merges)]
    rank = {piece: i for i, piece in enumerate(order)}
    if len(rank) < len(order):
        return None
    scores = [-float(rank.get(token, len(rank) + i)) for i, token in enumerate(tokens)]
    same = sorted(map(tuple, merges_of(tokens, kinds, scores))) == sorted(map(tuple, merges))
    return scores if same else None


def parts(*, space_before: bool) -> Json:
    """Of a tokenizer.json. space_before: each text, and what follows a special token, begins with a space."""
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    steps = [{"type": "Prepend", "prepend": SPACE}, spaces]
    back = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if space_before:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if space_before else spaces,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
    }


def space_before(layout: Json) -> bool | None:
    """Of a tokenizer.json that is of this kind; None for every other."""
    if not layout["model"].get("byte_fallback") or layout.get("pre_tokenizer") not in (None, _NO_CUT):
        return None
    found = [
        before
        for before in (True, False)
        if all(layout.get(part) == parts(space_before=before)[part] for part in ("normalizer", "decoder"))
    ]
    return found[0] if found else None
