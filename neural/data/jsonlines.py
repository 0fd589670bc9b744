"""JSON lines: one object on each line, whose text stands in one field. Blank lines do not count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from neural.data.text import open_bytes, refuse_binary, refuse_bytes
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest

LONGEST_LINE = 1 << 28  # bytes; a longer "line" is a file of another kind, and would not fit into memory
SHOWN_FIELDS = 12


def read_json_lines(path: Path, field: str, advance: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """The text of each line, in order; empty texts too.

    Calls `advance` with the number of bytes of each line. NeuralError: N703 (binary), N704 (not UTF-8), N705 (the
    system refuses), N708 (not a JSON object), N709 (no such field, or not a string).
    """
    number, offset = 0, 0
    with open_bytes(path) as file:
        while True:
            try:
                line = file.readline(LONGEST_LINE)
            except OSError as error:
                fail("N705", f"{path} cannot be read: {error.strerror}")
            if not line:
                return
            number += 1
            if len(line) == LONGEST_LINE:
                fail("N708", f"{path}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; is this JSON lines?")
            refuse_binary(line, offset, path)
            if line.strip():
                yield _text(path, number, _decode(path, offset, number, line), field)
            offset += len(line)
            advance(len(line))


def _decode(path: Path, offset: int, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        refuse_bytes(path, offset + error.start, number, error)


def _text(path: Path, number: int, line: str, field: str) -> str:
    place = f"{path}:{number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        fail("N708", f"{place}: not JSON: {error.msg} at column {error.colno}", hint="one JSON object on each line")
    except (ValueError, RecursionError):  # an integer of thousands of digits; brackets thousands deep
        fail("N708", f"{place}: JSON with a number or nesting beyond all bounds", hint="mend or remove the line")
    if not isinstance(record, dict):
        fail(
            "N708",
            f"{place}: {_kind(record)} where an object is needed",
            hint=f'write {{"{field}": "…"}} on each line',
        )
    if field not in record:
        shown = ", ".join(sorted(record)[:SHOWN_FIELDS]) or "none"
        near = nearest(field, record)
        text = near or next((name for name, value in record.items() if isinstance(value, str)), None)
        fail(
            "N709",
            f'{place}: no field "{field}"',
            notes=(f"fields on this line: {shown}" + (", …" if len(record) > SHOWN_FIELDS else ""),),
            hint=f"say which field holds the text, for example --text-field {text}" if text else None,
        )
    value = record[field]
    if not isinstance(value, str):
        fail("N709", f'{place}: field "{field}" is {_kind(value)}, not a string')
    half = next((c for c in value if "\ud800" <= c <= "\udfff"), None)
    if half:
        fail(
            "N708",
            f'{place}: field "{field}" holds \\u{ord(half):04x}, half of a surrogate pair',
            hint="mend the text where the file was made: no UTF-8 can hold it",
        )
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
