"""The tokenizer in a GGUF file, lists of tokens, types and merges or scores, as a tokenizer.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Vocabulary
from neural.interop.gguf import sentencepiece
from neural.interop.gguf.container import Container
from neural.interop.gguf.documents import Kind, around, document
from neural.interop.gguf.pretokenizers import CUTS, SYNONYMS, Cut
from neural.interop.gguf.sentencepiece import LONGEST_PIECE

Json = dict[str, Any]

PREFIX = "tokenizer.ggml."
ABSENT = ("none", "no_vocab")  # tokenizer.ggml.model of a file without a tokenizer


def read_vocabulary(container: Container, vocab_size: int) -> Vocabulary | None:
    """The tokenizer of a file, None if it has none. NeuralError N887."""
    return _Reader(container, vocab_size).vocabulary() if _has_one(container) else None


def _has_one(container: Container) -> bool:
    return container.metadata.get(f"{PREFIX}model", ABSENT[0]) not in ABSENT


class _Reader:
    def __init__(self, container: Container, vocab_size: int) -> None:
        self.container, self.vocab_size = container, vocab_size

    def vocabulary(self) -> Vocabulary:
        layouts = {"gpt2": self._byte_level, "llama": self._sentencepiece}
        model = self._get("model")
        if not isinstance(model, str) or model not in layouts:
            known = "byte-level BPE (`gpt2`) and SentencePiece's (`llama`) are known"
            self._refuse(f"it is of the kind {str(model)[:40]!r}", known)
        tokens, kinds = self._tokens()
        bos, eos, pad = (self._id(name) for name in ("bos", "eos", "padding"))
        layout, add_bos = layouts[model](tokens, kinds)
        layout["post_processor"] = self._ends(tokens, add_bos, bos, eos)
        template = self.container.metadata.get("tokenizer.chat_template")
        if not isinstance(template, str | None):
            self._refuse("its chat template is no text")
        return Vocabulary(json.dumps(layout, ensure_ascii=False) + "\n", bos, eos, pad, template)

    def _byte_level(self, tokens: list[str], kinds: list[Kind]) -> tuple[Json, bool]:
        """The tokenizer.json, and whether a text begins with bos when nothing is said of it."""
        cut = self._cut()
        merges = self._merges(set(tokens))
        parts = {
            "normalizer": {"type": "NFC"} if cut.nfc else None,
            "pre_tokenizer": cut.pre_tokenizer,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        }
        return document(tokens, kinds, parts, {"ignore_merges": cut.whole_words, "merges": merges}), cut.add_bos

    def _sentencepiece(self, tokens: list[str], kinds: list[Kind]) -> tuple[Json, bool]:
        scores = self._numbers("scores", len(tokens))
        if not all(map(math.isfinite, scores)):
            self._refuse("a score is no number")
        if longest := next((t for t in tokens if len(t) > LONGEST_PIECE), None):
            self._refuse(f"the token {longest[:40]!r}… has {len(longest):,} characters")
        if self._flag("remove_extra_whitespaces", False):
            self._refuse("it takes spaces away, and no other tokenizer does that as it does")
        unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind is Kind.UNKNOWN), None)
        parts = sentencepiece.parts(space_before=self._flag("add_space_prefix", True))
        merges = sentencepiece.merges_of(tokens, kinds, scores)
        model = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True, "merges": merges}
        return document(tokens, kinds, parts, model), True

    def _cut(self) -> Cut:
        pre = self._get("pre")
        name = SYNONYMS.get(pre, pre) if isinstance(pre, str) else None
        if name not in CUTS:
            what = "it does not say how it cuts text" if pre is None else f"it cuts text as {str(pre)[:40]!r}"
            self._refuse(f"{what} (tokenizer.ggml.pre)", f"known are {', '.join(sorted({*CUTS, *SYNONYMS}))}")
        return CUTS[name]

    def _tokens(self) -> tuple[list[str], list[Kind]]:
        tokens = self._get("tokens")
        if not isinstance(tokens, list) or len(tokens) != self.vocab_size:
            found = f"{len(tokens):,}" if isinstance(tokens, list) else "no"
            self._refuse(f"it has {found} tokens, and the model has {self.vocab_size:,} embeddings")
        if len(set(tokens)) < len(tokens):
            self._refuse("a token stands in it twice")
        if self._get("token_type") is None:
            return tokens, [Kind.NORMAL] * len(tokens)
        numbers = self._numbers("token_type", len(tokens))
        if wrong := set(numbers) - set(Kind):
            self._refuse(f"a token has the type {min(wrong)}, which is none")
        return tokens, [Kind(n) for n in numbers]

    def _numbers(self, key: str, count: int) -> list[float]:
        found = self._get(key)
        if not isinstance(found, list) or len(found) != count or not all(isinstance(n, int | float) for n in found):
            self._refuse(f"its {key} is no list of one number a token")
        return found

    def _flag(self, key: str, usual: bool) -> bool:
        found = self._get(key)
        if not isinstance(found, bool | None):
            self._refuse(f"its {key} is {str(found)[:40]}, and it is true or false")
        return usual if found is None else found

    def _merges(self, tokens: set[str]) -> list[list[str]]:
        merges = self._get("merges")
        if not isinstance(merges, list):
            self._refuse("it has no merges")
        pairs = [[left, right] for left, _, right in (merge.partition(" ") for merge in merges)]
        for left, right in pairs:
            if not (left in tokens and right in tokens and left + right in tokens):
                self._refuse(f"the merge {f'{left} {right}'[:60]!r} is not of tokens and to a token")
        return pairs

    def _id(self, name: str) -> int | None:
        number = self._get(f"{name}_token_id")
        if number is not None and (type(number) is not int or not 0 <= number < self.vocab_size):
            self._refuse(f"its {name}_token_id is {str(number)[:40]}, and its tokens are 0 to {self.vocab_size - 1:,}")
        return number

    def _ends(self, tokens: Sequence[str], add_bos: bool, bos: int | None, eos: int | None) -> Json | None:
        """What puts the special tokens around a text."""
        ends = []
        for name, usual, number in (("bos", add_bos, bos), ("eos", False, eos)):
            wanted = self._flag(f"add_{name}_token", usual)
            if wanted and number is None:
                self._refuse(f"it puts {name} around a text, and has no {name}_token_id")
            ends.append((tokens[number], number) if wanted else None)
        return around(*ends)

    def _get(self, key: str) -> object:
        return self.container.metadata.get(PREFIX + key)

    def _refuse(self, what: str, hint: str | None = None) -> NoReturn:
        fail("N887", f"the tokenizer of {self.container.path} cannot be read: {what}", hint=hint)
