"""What the spelling of a number or a string stands for, or why it stands for nothing."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

MAX_DIGITS = 500

_INTEGER = re.compile(r"0+(?:_0+)*|[1-9][0-9]*(?:_[0-9]+)*")
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_FLOAT = re.compile(rf"(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?|{_DIGITS}[eE][+-]?{_DIGITS}")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|(?s:.))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}

WORDS = {"true": True, "false": False, "none": None, "True": True, "False": False, "None": None}


class Trouble(NamedTuple):
    """What is wrong with a literal: the code, title and hint of its message, and where in the literal it stands."""

    code: str
    title: str
    hint: str
    start: int
    end: int


def read_number(text: str) -> int | float | Trouble:
    """`12`, `1_000_000`, `1.5`, `.5`, `1e-5`; a Trouble for anything else."""
    if len(text) > MAX_DIGITS:
        return Trouble("N125", f"a number of {len(text)} characters is too long", _SMALLER, 0, len(text))
    if _INTEGER.fullmatch(text):
        return int(text)
    if not _FLOAT.fullmatch(text):
        return Trouble("N111", f"`{shorten(text)}` is not a number", _number_hint(text), 0, len(text))
    value = float(text)
    mantissa = re.split("[eE]", text)[0]
    if math.isinf(value) or (value == 0.0 and mantissa.strip("0._")):
        size = "large" if value else "small"
        return Trouble("N125", f"`{shorten(text)}` is too {size} for a float", _SMALLER, 0, len(text))
    return value


_SMALLER = "floats reach from 5e-324 to 1.8e308, integers have at most 500 digits"


def _number_hint(text: str) -> str:
    if re.fullmatch(r"0[0-9_]+", text):
        return f"write `{text.lstrip('0_')}`: a number does not begin with 0"
    if re.match(r"0[xXbBoO]", text):
        return "write the number in decimal"
    if re.fullmatch(r"[0-9.]+[kKmMgGbB]", text):
        return "write all digits: 1_000 for 1k, 1_000_000 for 1M"
    if text.endswith(("e", "E", "+", "-")):
        return "digits are missing after the exponent: 1e-5"
    if text.count(".") > 1:
        return "a number has one decimal point"
    return "a number looks like 12, 1_000, 0.5 or 1e-5; a name begins with a letter"


def read_string(text: str) -> tuple[str, list[Trouble]]:
    """The characters between the quotes with escapes resolved, and each escape that means nothing."""
    troubles: list[Trouble] = []

    def resolve(match: re.Match[str]) -> str:
        letter = match[1]
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if len(letter) == 5 and not "d800" <= letter[1:].lower() <= "dfff":
            return chr(int(letter[1:], 16))
        troubles.append(_bad_escape(match[0], match.start() + 1))
        return match[0]

    return _ESCAPE.sub(resolve, text[1:-1]), troubles


def _bad_escape(text: str, start: int) -> Trouble:
    if len(text) > 2:
        title, hint = f"`{text}` is half of a surrogate pair, not a character", "write the character itself"
    elif text == "\\u":
        title, hint = "`\\u` is not followed by four hexadecimal digits", 'write it as in "\\u00e9"'
    else:
        shown = text if text.isprintable() else repr(text[1])[1:-1].join(("\\", ""))
        title = f"`{shown}` is not an escape"
        hint = "escapes are \\n \\t \\r \\\\ \\\" \\' \\uXXXX; write \\\\ for a backslash"
    return Trouble("N112", title, hint, start, start + len(text))


def write_string(value: str) -> str:
    """The string as a literal in double quotes."""
    plain = value.replace("\\", "\\\\").replace('"', '\\"')
    short = {character: f"\\{letter}" for letter, character in _ESCAPES.items() if letter in "ntr"}
    return '"' + "".join(c if c.isprintable() else short.get(c) or _u_escape(c) for c in plain) + '"'


def _u_escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else character


def shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
