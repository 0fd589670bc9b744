"""What every tokenizer.json is made of, whatever kind of tokenizer a GGUF file holds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

Json = dict[str, Any]


class Kind(IntEnum):
    """tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


ADDED = {Kind.UNKNOWN: True, Kind.CONTROL: True, Kind.USER_DEFINED: False}  # found whole in a text; whether special


def padding(number: int) -> str:
    """What an id is called that no text has: the table of embeddings is longer than the vocabulary."""
    return f"[PAD{number}]"


def document(tokens: Sequence[str], kinds: Sequence[Kind], parts: Json, model: Json) -> Json:
    """parts: normalizer, pre_tokenizer, post_processor, decoder. model: what differs from a plain BPE."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": token, **flags, "special": ADDED[kind]}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in ADDED
    ]
    unused = {i for i, kind in enumerate(kinds) if kind is Kind.UNUSED and tokens[i] == padding(i)}
    plain = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(tokens) if i not in unused},
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **parts,
        "model": plain | model,
    }


def around(bos: tuple[str, int] | None, eos: tuple[str, int] | None) -> Json | None:
    """`tokenizers`' post-processor that begins each text with `bos` and ends it with `eos`; None without both."""
    if not (bos or eos):
        return None

    def ends(text: str, kind: int) -> list[Json]:
        special = [{"SpecialToken": {"id": end[0], "type_id": kind}} if end else None for end in (bos, eos)]
        return [part for part in (special[0], {"Sequence": {"id": text, "type_id": kind}}, special[1]) if part]

    special = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in filter(None, (bos, eos))}
    return {
        "type": "TemplateProcessing",
        "single": ends("A", 0),
        "pair": [*ends("A", 0), *ends("B", 1)],
        "special_tokens": special,
    }
