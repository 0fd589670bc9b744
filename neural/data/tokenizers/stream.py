"""Decoding while the ids still come."""

from __future__ import annotations

import codecs

from neural.data.tokenizers.tokenizer import Tokenizer


class StreamDecoder:
    """Text as soon as it is whole: a character whose bytes are spread over tokens comes with the last of them.

    The pieces of `push` and then of `flush`, joined, are `tokenizer.decode` of all the ids. NeuralError N758 for an id
    outside the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf_8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []  # of tokenizers whose tokens are no bytes: those that the next text depends on
        self._told = 0  # how many of them are in text that was given

    def push(self, token_id: int) -> str:
        """The text that is certain with this token; often its own, sometimes none or that of several."""
        if self._tokenizer.is_bytewise:
            return self._utf_8.decode(self._tokenizer.bytes_of(token_id))
        self._ids.append(token_id)
        before, now = self._before_and_now()
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._ids = self._ids[self._told :]  # one token of context says whether a space stands before the next
        self._told = len(self._ids)
        return now[len(before) :]

    def flush(self) -> str:
        """What is left at the end: U+FFFD for bytes that never became a character."""
        if self._tokenizer.is_bytewise:
            return self._utf_8.decode(b"", final=True)
        before, now = self._before_and_now()
        self._ids, self._told = [], 0
        return now[len(before) :]

    def _before_and_now(self) -> tuple[str, str]:
        return self._tokenizer.decode(self._ids[: self._told]), self._tokenizer.decode(self._ids)
