"""The tree of a `.neural` file: what was written, where, and nothing about what it means."""

from __future__ import annotations

from dataclasses import dataclass

from neural.diagnostics.source import Source, Span


@dataclass(frozen=True, slots=True)
class Name:
    text: str
    span: Span


# Expressions


@dataclass(frozen=True, slots=True)
class Literal:
    """An int, float, str, bool or None."""

    value: int | float | str | bool | None
    span: Span


@dataclass(frozen=True, slots=True)
class Ref:
    """`$name` (dollar) or a bare `name`."""

    name: str
    dollar: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """`-operand`."""

    op: str
    operand: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`, op one of + - * / **."""

    op: str
    left: Expr
    right: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Sequence:
    """`(a, b)` (kind "tuple") or `[a, b]` (kind "list")."""

    kind: str
    items: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """`value` or `name=value` in a call."""

    name: Name | None
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """`callee(arguments)` as a value: `AdamW(learning_rate=1e-3)`, `HPO(choice(1, 2))`."""

    callee: Name
    arguments: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """`key: value` in a map."""

    key: Name
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Map:
    """`{ key: value … }`, entries separated by commas or by nothing."""

    entries: tuple[Entry, ...]
    span: Span


Expr = Literal | Ref | Unary | Binary | Sequence | Call | Map

# Statements and declarations


@dataclass(frozen=True, slots=True)
class Statement:
    """`[name =] layer(arguments) [{ body }] [* repeat]`. `body` is None where no braces stand."""

    name: Name | None
    layer: Name
    arguments: tuple[Argument, ...]
    body: tuple[Statement, ...] | None
    repeat: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class Import:
    """`import "path"`; path is a string literal."""

    path: Literal
    span: Span


@dataclass(frozen=True, slots=True)
class Param:
    """`param name = value`."""

    name: Name
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name` or `name = default` in the head of a define."""

    name: Name
    default: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class Define:
    name: Name
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Section:
    """`key: value` or `key { … }` (a Map) of a network; for `layers:`, the statements."""

    key: Name
    value: Expr | tuple[Statement, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Network:
    name: Name
    sections: tuple[Section, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Comment:
    """A `#`, `//` or `/* */` comment, its marks included."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class File:
    source: Source
    items: tuple[Import | Param | Define | Network, ...]
    comments: tuple[Comment, ...]
    complete: bool = True
    """False where a passage could not be read: what seems wrong with the meaning may only follow from that."""
