"""Where a text ends: stop strings, found in text whatever the tokens they are spread over."""

from __future__ import annotations

from collections.abc import Sequence

from neural.diagnostics.diagnostic import fail


class StopStrings:
    """Lets text through piece by piece until one of the strings is complete; neither it nor what follows gets out.

    Text that may yet become a stop string is held back. The string that is complete first ends the text (of those that
    end together the longest), so that the result does not depend on how the text is cut into pieces.

    Raises NeuralError N914 for an empty string.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if any(not string for string in strings):
            fail("N914", "a stop string is empty", hint="give the text to stop at, such as --stop '\\n\\n'")
        self._strings = tuple(dict.fromkeys(strings))
        self._beginnings = {string[:length] for string in self._strings for length in range(1, len(string))}
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is now certain to stand before any stop string. Sets `found` when one is complete."""
        text = self._held + text
        ends = ((at + len(s), at) for s in self._strings if (at := text.find(s)) >= 0)
        first = min(ends, default=None)
        if first is not None:
            self.found, self._held = True, ""
            return text[: first[1]]
        lengths = range(min(self._longest - 1, len(text)), 0, -1)
        held = next((length for length in lengths if text[-length:] in self._beginnings), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """The text held back, once no more will come."""
        held, self._held = self._held, ""
        return held
