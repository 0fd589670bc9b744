"""What a tree says, without places and comments: nested tuples to compare."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from neural.diagnostics.source import Source
from neural.syntax.parser import parse
from neural.syntax.tree import File, Literal, Name


def shape(node: object) -> object:
    match node:
        case File():
            return shape(node.items)
        case Literal():
            return ("Literal", type(node.value).__name__, repr(node.value))
        case Name():
            return node.text
        case tuple():
            return tuple(shape(n) for n in node)
    if is_dataclass(node):
        return (type(node).__name__, *(shape(getattr(node, f.name)) for f in fields(node) if f.name != "span"))
    return node


def read(text: str) -> File:
    """The tree of a program without mistakes."""
    file, messages = parse(Source("test.neural", text))
    assert not messages, [f"{d.code} {d.title}" for d in messages] + [text]
    assert file.complete
    return file


def comments(file: File) -> list[str]:
    return sorted(c.text.replace("\r\n", "\n") for c in file.comments)
