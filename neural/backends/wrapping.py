"""Long lines of generated source, broken as a formatter would break them."""

from __future__ import annotations

WIDTH = 88


def wrap(line: str) -> list[str]:
    """One statement as lines of at most 88 columns where its brackets allow it."""
    code, comment = _split_comment(line)
    if len(line) <= WIDTH:
        return [line]
    if comment and len(code) <= WIDTH:
        indent = code[: len(code) - len(code.lstrip())]
        return [indent + comment, code]
    pair = _outer_brackets(code, first=code.lstrip().startswith("def "))
    if pair is None:
        return [line]
    opening, closing = pair
    indent = " " * (len(code) - len(code.lstrip()))
    head, inside, tail = code[: opening + 1], code[opening + 1 : closing], code[closing:]
    together = f"{indent}    {inside}"
    parts = _split_commas(inside)
    called = opening > 0 and (code[opening - 1].isalnum() or code[opening - 1] in "_)]")
    if len(together) <= WIDTH and (called or len(parts) == 1):
        middle = [together]
    elif len(parts) == 1:
        element, found, source = inside.rpartition(" for ")
        pieces = [f"{indent}    {element}", f"{indent}    for {source}"] if found else [together]
        middle = [line for piece in pieces for line in wrap(piece)]
    else:
        middle = [piece for part in parts for piece in wrap(f"{indent}    {part},")]
    first = [indent + comment] if comment else []
    return [*first, head, *middle, indent + tail]


def _split_comment(line: str) -> tuple[str, str]:
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote and line[i - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
        elif c == "#":
            return line[:i].rstrip(), line[i:]
    return line, ""


def _outer_brackets(code: str, first: bool) -> tuple[int, int] | None:
    """The last (or first) bracket pair at depth 0 that has something in it."""
    depth, start, found, quote = 0, 0, None, ""
    for i, c in enumerate(code):
        if quote:
            quote = "" if c == quote and code[i - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
        elif c in "([{":
            start = i if depth == 0 else start
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0 and i > start + 1 and not (first and found):
                found = (start, i)
    return found


def _split_commas(inside: str) -> list[str]:
    parts, depth, start, quote = [], 0, 0, ""
    for i, c in enumerate(inside):
        if quote:
            quote = "" if c == quote and inside[i - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(inside[start:i].strip())
            start = i + 1
    parts.append(inside[start:].strip())
    return [p for p in parts if p]
