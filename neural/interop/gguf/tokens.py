"""A tokenizer.json as the lists that a GGUF file has of it. llama.cpp builds the tokenizer from these alone, so
whatever they cannot say is refused: it would give other ids there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import product
from typing import Any, NoReturn

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Vocabulary
from neural.interop.gguf import sentencepiece
from neural.interop.gguf.documents import Kind, around, padding
from neural.interop.gguf.pretokenizers import CUTS, cut_of

Json = dict[str, Any]

# Of the model in a tokenizer.json, and of a token that is found whole: what llama.cpp does not have.
_FOREIGN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
_MARGINS = ("lstrip", "rstrip", "single_word")
_BYTE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class ByteLevel:
    """pre: llama.cpp's name for how it cuts text. merges: "a b"."""

    pre: str
    merges: list[str]


@dataclass(frozen=True, slots=True)
class Pieces:
    """SentencePiece's."""

    scores: list[float]
    space_before: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """What stands under tokenizer.ggml."""

    model: ByteLevel | Pieces
    tokens: list[str]
    kinds: list[Kind]
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    add_bos: bool
    add_eos: bool


def to_tokens(vocabulary: Vocabulary | None, vocab_size: int) -> Tokens:
    """vocab_size: of the model; ids that the tokenizer does not have become unused ones. NeuralError N889."""
    if vocabulary is None:
        _refuse("the model has none, and llama.cpp needs one")
    layout = _parsed(vocabulary.tokenizer_json)
    space_before = sentencepiece.space_before(layout)
    tokens, kinds = _listed(layout, vocab_size, pieces=space_before is not None)
    model = _byte_level(layout, set(tokens)) if space_before is None else _pieces(layout, tokens, kinds, space_before)
    first, last = _ends(layout.get("post_processor"))
    bos_id = _agreed("bos_id", vocabulary.bos_id, first, tokens)
    eos_id = _agreed("eos_id", vocabulary.eos_id, last, tokens)
    if eos_id is None:
        _refuse("it has no token for the end of text, and llama.cpp would take some other for it")
    pad_id = _agreed("pad_id", vocabulary.pad_id, None, tokens)
    return Tokens(model, tokens, kinds, bos_id, eos_id, pad_id, first is not None, last is not None)


def _parsed(text: str) -> Json:
    """A tokenizer.json with a BPE whose parts are of the right types."""
    try:
        layout = json.loads(text)
    except ValueError:
        _refuse("its tokenizer.json is not JSON")
    model = layout.get("model") if isinstance(layout, dict) else None
    if not isinstance(model, dict):
        _refuse("its tokenizer.json has no model")
    if model.get("type") != "BPE":
        kind = "characters" if model.get("type") == "WordLevel" else f"the kind {model.get('type')!r}"
        _refuse(f"it is of {kind}, and GGUF can be written with a byte-level BPE", "train one: neural tokenizer train")
    if foreign := next((key for key in _FOREIGN if model.get(key)), None):
        _refuse(f"it uses `{foreign}`, which llama.cpp does not have")
    vocabulary, added = model.get("vocab"), layout.get("added_tokens") or []
    if not isinstance(vocabulary, dict) or not all(type(i) is int and i >= 0 for i in vocabulary.values()):
        _refuse("its vocabulary is no table of tokens and ids")
    if not all(isinstance(t, dict) and type(t.get("id")) is int and isinstance(t.get("content"), str) for t in added):
        _refuse("its added tokens are no list of ids and contents")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(s, str) for s in p) for p in pairs):
        _refuse("its merges are no list of pairs")
    return layout | {"model": model | {"merges": pairs}}


def _byte_level(layout: Json, tokens: set[str]) -> ByteLevel:
    if layout["model"].get("byte_fallback") or (layout.get("decoder") or {}).get("type") != "ByteLevel":
        _refuse("it is neither a byte-level BPE nor SentencePiece's as Llama 2 and Gemma have it")
    pre, merges = cut_of(layout), layout["model"]["merges"]
    if pre is None:
        _refuse("llama.cpp has no name for the way in which it cuts text", f"it knows those of {', '.join(CUTS)}")
    if not merges:
        _refuse("it merges nothing, and llama.cpp needs merges")
    if wrong := next((m for m in merges if " " in "".join(m) or "".join(m) not in tokens), None):
        _refuse(f"the merge {' '.join(wrong)[:60]!r} makes no token")
    return ByteLevel(pre, [" ".join(merge) for merge in merges])


def _pieces(layout: Json, tokens: list[str], kinds: list[Kind], space_before: bool) -> Pieces:
    scores = sentencepiece.scores_of(tokens, kinds, layout["model"]["merges"])
    if scores is None:
        _refuse("its merges are not those that SentencePiece makes of scores")
    return Pieces(scores, space_before)


def _listed(layout: Json, vocab_size: int, *, pieces: bool) -> tuple[list[str], list[Kind]]:
    """Every id's token and its kind."""
    token_of = {i: token for token, i in layout["model"]["vocab"].items()}
    kind_of = {i: Kind.BYTE if pieces and _BYTE.fullmatch(token) else Kind.NORMAL for i, token in token_of.items()}
    for token in layout.get("added_tokens") or ():
        number, content = token["id"], token["content"]
        if token_of.get(number, content) != content:
            _refuse(f"the id {number} stands for {token_of[number]!r} and for {content!r}")
        if margin := next((key for key in _MARGINS if token.get(key)), None):
            _refuse(f"{content!r} is found with `{margin}`, which llama.cpp does not have")
        token_of[number] = content
        unknown = pieces and content == layout["model"].get("unk_token")
        kind_of[number] = Kind.UNKNOWN if unknown else Kind.CONTROL if token.get("special") else Kind.USER_DEFINED
    if token_of and not 0 <= min(token_of) <= max(token_of) < vocab_size:
        _refuse(f"it has the token {max(token_of):,}, and the model's ids end at {vocab_size - 1:,}")
    tokens = [token_of.get(i, padding(i)) for i in range(vocab_size)]
    if len(set(tokens)) < len(tokens):
        _refuse("two of its ids stand for one token")
    return tokens, [kind_of.get(i, Kind.UNUSED) for i in range(vocab_size)]


def _ends(post_processor: Json | None) -> tuple[int | None, int | None]:
    """The ids that begin and end every text."""
    kind = (post_processor or {}).get("type")
    if kind == "Sequence":
        found = [end for end in map(_ends, post_processor.get("processors") or ()) if end != (None, None)]
        if len(found) < 2:
            return found[0] if found else (None, None)
    if kind in (None, "ByteLevel"):
        return None, None
    if kind == "TemplateProcessing":
        known = post_processor.get("special_tokens") or {}
        ends = [(name, entry["ids"][0]) for name, entry in known.items() if len(entry.get("ids") or ()) == 1]
        for bos, eos in product([None, *ends], repeat=2):
            if (template := around(bos, eos)) and template["single"] == post_processor.get("single"):
                return bos and bos[1], eos and eos[1]
    return _refuse("it puts more around a text than one token before it and one after it")


def _agreed(name: str, said: int | None, added: int | None, tokens: list[str]) -> int | None:
    """The one id, which the vocabulary says, or which is added to every text."""
    if None not in (said, added) and said != added:
        _refuse(f"its {name} is {said}, and it puts {added} around texts")
    number = added if said is None else said
    if number is not None and not 0 <= number < len(tokens):
        _refuse(f"its {name} is {number}, and its tokens are 0 to {len(tokens) - 1:,}")
    return number


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    fail("N889", f"the tokenizer cannot be written as GGUF: {what}", hint=hint)
