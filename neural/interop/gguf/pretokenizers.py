"""How a byte-level BPE cuts text before it merges: llama.cpp's names (`tokenizer.ggml.pre`) and what Hugging Face's
`tokenizers` writes for the same. A name that is not here is refused and not guessed: another cut gives other ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", "[0-9][0-9][0-9]")  # of files that were not told their own
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_LINES}"
_QWEN_2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_LINES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _splits(*patterns: str) -> tuple[Json, ...]:
    cuts = ({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns)
    return (*cuts, _byte_level(use_regex=False))


@dataclass(frozen=True, slots=True)
class Cut:
    """steps: of `tokenizers`' pre-tokenizer. whole_words: a word that is a token is not built of merges.
    add_bos: unless the file says otherwise. nfc: the text is normalised before (llama.cpp leaves that to its caller).
    """

    steps: tuple[Json, ...]
    whole_words: bool = False
    add_bos: bool = False
    nfc: bool = False

    @property
    def pre_tokenizer(self) -> Json:
        return self.steps[0] if len(self.steps) == 1 else {"type": "Sequence", "pretokenizers": list(self.steps)}


CUTS = {
    "gpt-2": Cut((_byte_level(use_regex=True),)),
    "smollm": Cut(({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True))),
    "llama-bpe": Cut(_splits(_LLAMA_3), whole_words=True, add_bos=True),
    "qwen2": Cut(_splits(_QWEN_2), nfc=True),
    "default": Cut(_splits(*_DEFAULT)),
    "tekken": Cut(_splits(_TEKKEN), whole_words=True, add_bos=True),
}

# Names that llama.cpp treats as one of those above.
SYNONYMS = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
    "starcoder": "smollm",
    "refact": "smollm",
    "phi-2": "gpt-2",
}


def cut_of(layout: Json) -> str | None:
    """llama.cpp's name for what a tokenizer.json does; None if it has none."""
    pre_tokenizer = layout.get("pre_tokenizer")
    normalizer = layout.get("normalizer")
    whole_words = bool(layout["model"].get("ignore_merges"))
    for name, cut in CUTS.items():
        if _steps(pre_tokenizer) == [_essence(s) for s in cut.steps] and whole_words == cut.whole_words:
            return name if normalizer is None or (cut.nfc and normalizer == {"type": "NFC"}) else None
    return None


def _steps(pre_tokenizer: Json | None) -> list[Json]:
    if (pre_tokenizer or {}).get("type") == "Sequence":
        return [step for inner in pre_tokenizer.get("pretokenizers") or () for step in _steps(inner)]
    return [_essence(pre_tokenizer)] if pre_tokenizer else []


def _essence(step: Json) -> Json:
    """Without what does not change ids, and with what is understood."""
    filled = {"use_regex": True, **step} if step.get("type") == "ByteLevel" else step
    return {key: value for key, value in filled.items() if key != "trim_offsets"}
