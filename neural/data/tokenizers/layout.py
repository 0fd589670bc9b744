"""What stands in a `tokenizer.json`: the few forms that we write, and the canonical form that the hash is taken of.

The documents are Hugging Face's, so that every tool that reads `tokenizer.json` reads ours. They are written here and
not by the `tokenizers` library, so that a hash does not change when that library changes its spelling.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

EOT = "<|endoftext|>"
"""End of text, as GPT-2 spells it."""

Layout = dict[str, Any]


class Kind(StrEnum):
    CHARACTERS = "characters"
    BYTES = "bytes"
    BYTE_LEVEL_BPE = "byte-level BPE"
    OTHER = "other"


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte, in GPT-2's order (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def characters(alphabet: Iterable[str], *, eot: bool) -> Layout:
    """Each character is a token; its id is its place in the sorted alphabet, as in nanoGPT's shakespeare_char.

    `eot`: end of text comes last.
    """
    vocabulary = {character: i for i, character in enumerate(sorted(alphabet))}
    return _document(
        model={
            "type": "WordLevel",
            "vocab": vocabulary,
            "unk_token": "<unk>",
        },  # which is no token: unknown is an error
        pre_tokenizer={"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        decoder={"type": "Fuse"},
        specials={EOT: len(vocabulary)} if eot else {},
    )


def raw_bytes() -> Layout:
    """Each byte of the UTF-8 is a token whose id is its value; end of text is 256."""
    vocabulary = _by_id({character: byte for byte, character in byte_alphabet().items()} | {EOT: 256})
    return _document(
        model=_bpe(vocabulary, []),
        pre_tokenizer=_byte_level(use_regex=False),
        decoder=_byte_level(),
        specials={EOT: 256},
    )


def byte_level_bpe(vocabulary: dict[str, int], merges: list[list[str]], specials: dict[str, int]) -> Layout:
    """GPT-2's kind: its pattern cuts the text, pairs of bytes merge in the order of `merges`."""
    return _document(
        model=_bpe(vocabulary | specials, merges),
        pre_tokenizer=_byte_level(),
        decoder=_byte_level(),
        specials=specials,
    )


def kind_of(layout: Layout) -> Kind:
    """Which of our own forms this is, exactly."""
    model = layout["model"]
    vocabulary = model.get("vocab")
    if model.get("type") == "WordLevel" and vocabulary and all(len(token) == 1 for token in vocabulary):
        specials = _specials(layout) or {}
        eot = bool(specials)
        if layout == characters(vocabulary, eot=eot):
            return Kind.CHARACTERS
    if layout == raw_bytes():
        return Kind.BYTES
    reduced = _as_byte_level_bpe(layout)
    return Kind.BYTE_LEVEL_BPE if reduced == layout else Kind.OTHER


def canonical(layout: Layout) -> Layout:
    """The same tokenizer in one spelling: a byte-level BPE as `byte_level_bpe` writes it, any other without the
    settings of a call (truncation, padding) and with its merges as pairs."""
    reduced = _as_byte_level_bpe(layout)
    if reduced is not None:
        return reduced
    model = layout["model"]
    if "merges" in model:
        model = model | {"merges": _pairs(model["merges"])}
    return layout | {"model": model, "truncation": None, "padding": None}


def digest(layout: Layout) -> str:
    """SHA-256 (hex) of the canonical form."""
    text = json.dumps(layout, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(layout: Layout) -> str:
    """As it is written to disk."""
    return json.dumps(layout, ensure_ascii=False) + "\n"


def _as_byte_level_bpe(layout: Layout) -> Layout | None:
    """In the form of `byte_level_bpe`; None if anything in the document says that it is another kind."""
    model, cutter, specials = layout["model"], layout.get("pre_tokenizer") or {}, _specials(layout)
    plain = (
        model.get("type") == "BPE"
        and not any(model.get(key) for key in ("dropout", "unk_token", "byte_fallback", "ignore_merges"))
        and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix"))
        and layout.get("normalizer") is None
        and cutter.get("type") == "ByteLevel"
        and cutter.get("add_prefix_space") is False
        and cutter.get("use_regex", True)
        and (layout.get("decoder") or {}).get("type") == "ByteLevel"
        and not _opens(layout.get("post_processor") or {})
    )
    if not plain or specials is None:
        return None
    return byte_level_bpe(_by_id(model["vocab"]), _pairs(model["merges"]), _by_id(specials))


def _opens(post_processor: Layout) -> bool:
    """Whether special tokens are put around each text."""
    kind = post_processor.get("type")
    return bool(post_processor.get("special_tokens")) or kind not in (None, "ByteLevel", "TemplateProcessing")


def _specials(layout: Layout) -> dict[str, int] | None:
    """The special tokens; None if there are added tokens that are found in ordinary text."""
    added = layout.get("added_tokens") or []
    return {token["content"]: token["id"] for token in added} if all(token.get("special") for token in added) else None


def _by_id(vocabulary: dict[str, int]) -> dict[str, int]:
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def _pairs(merges: list[str] | list[list[str]]) -> list[list[str]]:
    """Older files have "a b" where newer ones have ["a", "b"]."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def _document(*, model: Layout, pre_tokenizer: Layout, decoder: Layout, specials: dict[str, int]) -> Layout:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(content, number) for content, number in specials.items()],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _special(content: str, number: int) -> Layout:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _byte_level(*, use_regex: bool = True) -> Layout:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _bpe(vocabulary: dict[str, int], merges: list[list[str]]) -> Layout:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }
