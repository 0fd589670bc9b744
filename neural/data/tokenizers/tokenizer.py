"""Text to token ids and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from neural.data.durable import write_bytes
from neural.data.tokenizers import layout as form
from neural.data.tokenizers.checking import checked, malformed
from neural.data.tokenizers.layout import Kind, Layout
from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    import tokenizers

# What end of text is called, in the order of preference.
_EOT_NAMES = (form.EOT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_SHOWN = 8
_PROBE = ("One more", " thing, said the", " 42nd of them")


class Tokenizer:
    """Hugging Face's `tokenizers` underneath, and two kinds that are simple enough for NumPy (characters, bytes).

    `layout` is the content of a tokenizer.json. Make one with `load_tokenizer` or `train_bpe`.
    `source` says where it came from, for messages. NeuralError N752 for a layout that is not a tokenizer, N762 where
    the library is missing.
    """

    def __init__(self, layout: Layout, source: str) -> None:
        self.source = source
        self._also_ends: frozenset[int] = frozenset()
        self.layout = checked(layout, source)
        self.kind = form.kind_of(self.layout)
        if self.kind in (Kind.BYTE_LEVEL_BPE, Kind.OTHER):
            _ = self._engine  # a malformed file is said now, and not at the first word

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical tokenizer.json: the same wherever the tokenizer came from."""
        return form.digest(self.layout)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._token_of, default=-1) + 1

    @cached_property
    def eot_id(self) -> int | None:
        """The id of end of text, that separates documents and ends what a model writes; None if there is none."""
        ids = {content: number for number, content in self._special_of.items()}
        return next((ids[name] for name in _EOT_NAMES if name in ids), None)

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end what a model writes: end of text, and those of `ending_also`."""
        return self._also_ends | ({self.eot_id} - {None})

    def ending_also(self, *ids: int) -> Self:
        """The same tokenizer for a model that ends its texts with further tokens, as one that was taught to chat."""
        same = copy(self)
        same._also_ends = self._also_ends | {*ids}
        return same

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """(vocab_size,) int32: bytes of UTF-8 that each id stands for; 0 for special tokens."""
        return np.array([len(token) for token in self._bytes_of], dtype=np.int32)

    @cached_property
    def cuts_exactly(self) -> bool:
        """Whether the ids of a text are those of its pieces, cut as `neural.data.text.cut` does.

        So it is for byte-level BPE, characters and bytes. A tokenizer that marks the beginning of each text
        (SentencePiece's) must be given documents whole; three words tell which it is.
        """
        return (
            self.encode("".join(_PROBE)) == [i for part in _PROBE for i in self.encode(part)] if self._engine else True
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text, as tiktoken's `encode_ordinary` gives them: "<|endoftext|>" in the text is read as its
        characters and never as the special token, which only its id `eot_id` can bring.

        NeuralError N756 (a character that the vocabulary lacks), N757 (half of a surrogate pair).
        """
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, uint32, on all cores. NeuralError as `encode` raises it."""
        if self.kind is Kind.CHARACTERS:
            return [self._encode_characters(text) for text in texts]
        if self.kind is Kind.BYTES:
            return [np.frombuffer(_utf_8(text), np.uint8).astype(np.uint32) for text in texts]
        for text in texts:
            _utf_8(text)
        try:
            found = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            fail("N756", f"the tokenizer from {self.source} cannot encode this text: {error}")
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text in which the names of special tokens stand for those tokens, as in a chat's prompt.

        Only for text of the model's own format: what a person wrote could end a turn. NeuralError as `encode`.
        """
        marks = sorted(self._special_of.values(), key=len, reverse=True)
        if not marks:
            return self.encode(text)
        ids = {content: number for number, content in self._special_of.items()}
        parts = re.split(f"({'|'.join(map(re.escape, marks))})", text)
        return [i for part in parts if part for i in ([ids[part]] if part in ids else self.encode(part))]

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """Special tokens that the model expects before each text (Llama's begin-of-text), as the file says."""
        if self._engine is None:
            return ()
        marked = self._engine.encode("a", add_special_tokens=True).ids
        plain = self._engine.encode("a", add_special_tokens=False).ids
        return tuple(marked[: marked.index(plain[0])]) if plain and plain[0] in marked else ()

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of all special tokens."""
        return frozenset(self._special_of)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Special tokens stand for no text; bytes that are no UTF-8 become U+FFFD.

        NeuralError N758 for an id outside the vocabulary.
        """
        ids = self._known(ids)
        if self.is_bytewise:
            return b"".join(self._bytes_of[i] for i in ids).decode("utf-8", errors="replace")
        return self._engine.decode(ids, skip_special_tokens=True)

    def piece(self, token_id: int) -> str:
        """One token, to show to people: its text, or the name of a special token."""
        (token_id,) = self._known([token_id])
        return self._special_of.get(token_id) or self._bytes_of[token_id].decode("utf-8", errors="replace")

    def first_difference(self, other: Tokenizer) -> int | None:
        """The first id that stands for something else in another tokenizer; None where only their rules differ."""
        both = range(min(self.vocab_size, other.vocab_size))
        return next((i for i in both if self.piece(i) != other.piece(i)), None)

    def bytes_of(self, token_id: int) -> bytes:
        """What an id adds to the text, for tokenizers that are `is_bytewise`; empty for special tokens."""
        (token_id,) = self._known([token_id])
        return self._bytes_of[token_id]

    @property
    def is_bytewise(self) -> bool:
        """Whether the bytes of a text are those of its tokens, one after the other."""
        return self.kind is not Kind.OTHER

    def save(self, path: Path | str) -> None:
        """Write tokenizer.json, whole or not at all. OSError as the system gives it."""
        write_bytes(Path(path), form.to_json(self.layout).encode())

    def __repr__(self) -> str:
        return f"<{self.kind} tokenizer of {self.vocab_size:,} tokens from {self.source}>"

    @cached_property
    def _engine(self) -> tokenizers.Tokenizer | None:
        if self.kind in (Kind.CHARACTERS, Kind.BYTES):
            return None
        try:
            import tokenizers
        except ImportError:
            fail("N762", "this tokenizer needs the package tokenizers", hint="run: pip install 'neural-dsl[torch]'")
        try:
            engine = tokenizers.Tokenizer.from_str(form.to_json(self.layout))
        except Exception as error:  # the library raises nothing narrower
            fail("N752", f"{self.source} is not a tokenizer that the library tokenizers can read: {error}")
        for token in self.layout["added_tokens"]:
            if engine.token_to_id(token["content"]) != token["id"]:
                malformed(self.source, f"the added token {token['content']!r} cannot have the id {token['id']}")
        engine.encode_special_tokens = True  # read "<|endoftext|>" in a text as text
        return engine

    @cached_property
    def _token_of(self) -> dict[int, str]:
        vocabulary = self.layout["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of token and score
            tokens = dict(enumerate(token for token, _ in vocabulary))
        else:
            tokens = {number: token for token, number in vocabulary.items()}
        return tokens | {token["id"]: token["content"] for token in self.layout["added_tokens"]}

    @cached_property
    def _special_of(self) -> dict[int, str]:
        return {token["id"]: token["content"] for token in self.layout["added_tokens"] if token.get("special")}

    @cached_property
    def _bytes_of(self) -> list[bytes]:
        """The UTF-8 of each id. Exact where `is_bytewise`; else as the usual marks of other tokenizers say."""
        found = [b""] * self.vocab_size
        byte_of = {character: byte for byte, character in form.byte_alphabet().items()}
        decoder = self.layout["decoder"] or {}
        byte_level = "ByteLevel" in (decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", ())))
        for number, token in self._token_of.items():
            if number in self._special_of:
                continue
            if byte_level and all(character in byte_of for character in token):
                found[number] = bytes(byte_of[character] for character in token)
            elif escaped := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
                found[number] = bytes.fromhex(escaped[1])
            else:
                found[number] = token.replace("▁", " ").removeprefix("##").encode("utf-8", errors="replace")
        return found

    @cached_property
    def _id_of_character(self) -> np.ndarray:
        """Id of each code point, -1 for those without."""
        vocabulary = self.layout["model"]["vocab"]
        table = np.full(ord(max(vocabulary)) + 2, -1, dtype=np.int32)  # the last entry is for all code points above
        for character, number in vocabulary.items():
            table[ord(character)] = number
        return table

    def _encode_characters(self, text: str) -> np.ndarray:
        _utf_8(text)
        table = self._id_of_character
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = table[np.minimum(points, len(table) - 1)]
        if ids.size and ids.min() < 0:
            at = int(np.argmin(ids))
            unknown = sorted({text[i] for i in np.flatnonzero(ids < 0)})
            shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:_SHOWN])
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            fail(
                "N756",
                f"the character tokenizer has no {shown}{more}",
                notes=(f"first at character {at:,} of the text",),
                hint='leave it out, learn from a text that has it, or use "byte" or "gpt2", which know all',
            )
        return ids.astype(np.uint32)

    def _known(self, ids: Iterable[int]) -> list[int]:
        known = [int(i) for i in ids]
        for i in known:
            if not 0 <= i < self.vocab_size:
                fail(
                    "N758",
                    f"there is no token {i}: the ids of this tokenizer are 0 to {self.vocab_size - 1}",
                    hint="use the tokenizer that the ids were made with",
                )
        return known


def _utf_8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        fail(
            "N757",
            f"character {error.start:,} of the text is \\u{ord(text[error.start]):04x}, half of a surrogate pair",
            hint="give text that UTF-8 can hold: bytes of another encoding were read as UTF-8",
        )
