"""Is this parsed JSON a tokenizer.json? Said here in our words, before a library says it in its own."""

from __future__ import annotations

from typing import Any, NoReturn

from neural.data.tokenizers.layout import Layout, canonical
from neural.diagnostics.diagnostic import fail

LARGEST_ID = 1 << 24

_DEFAULTS = {"version": "1.0", "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}


def checked(layout: Any, source: str) -> Layout:
    """The canonical form. NeuralError N752 unless it has the parts that a tokenizer needs."""
    model = layout.get("model") if isinstance(layout, dict) else None
    if not isinstance(model, dict):
        malformed(source, 'it has no object "model"')
    added = layout.get("added_tokens") or []
    if not (isinstance(added, list) and all(isinstance(token, dict) for token in added)):
        malformed(source, '"added_tokens" is no list of tokens')
    if not all(isinstance(token.get("content"), str) for token in added):
        malformed(source, 'an added token has no "content"')
    _check_ids(source, _vocabulary_ids(source, model.get("vocab")), [token.get("id") for token in added])
    merges = model.get("merges", [])
    if not isinstance(merges, list) or not all(isinstance(merge, str | list) for merge in merges):
        malformed(source, '"merges" is no list of pairs')
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if not isinstance(layout.get(part), dict | None):
            malformed(source, f'"{part}" is neither an object nor null')
    return canonical({**_DEFAULTS, **layout, "added_tokens": added})


def malformed(source: str, what: str) -> NoReturn:
    """NeuralError N752."""
    fail("N752", f"{source} is not a tokenizer.json: {what}", hint="`neural tokenizer train` writes a good one")


def _vocabulary_ids(source: str, vocabulary: Any) -> list[Any]:
    if isinstance(vocabulary, dict):
        return list(vocabulary.values())
    if isinstance(vocabulary, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in vocabulary):
        return list(range(len(vocabulary)))  # Unigram: pairs of token and score
    return malformed(source, '"model" has no "vocab" of tokens and ids')


def _check_ids(source: str, ids: list[Any], added: list[Any]) -> None:
    for number in (*ids, *added):
        if type(number) is not int or not 0 <= number < LARGEST_ID:
            malformed(source, f"the id {number!r} is no number from 0 to {LARGEST_ID - 1:,}")
    if not ids and not added:
        malformed(source, "its vocabulary is empty")
    if len(set(ids)) < len(ids):
        malformed(source, "two tokens have one id")
