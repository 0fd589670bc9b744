"""Which comment belongs to what: before an element of a list, behind it, behind an opening bracket, or at the end."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from neural.syntax.tree import (
    Argument,
    Binary,
    Call,
    Comment,
    Define,
    Entry,
    File,
    Map,
    Network,
    Param,
    Parameter,
    Section,
    Sequence,
    Statement,
    Unary,
)

_FILLING = re.compile(r"(?:[\s,:\ufeff]|\#[^\n]*|//[^\n]*|/\*(?s:.*?)\*/)*")

Key = tuple[int, str]


@dataclass(eq=False)
class Group:
    """The elements between two brackets, and the comments that stand there."""

    key: Key
    open: int
    close: int
    elements: tuple = ()
    header: list[Comment] = field(default_factory=list)
    dangling: list[Comment] = field(default_factory=list)
    busy: bool = False
    """A comment stands somewhere between the brackets, so each element needs lines of its own."""


class Placement:
    """The comments of a file, each at its element. Elements and groups are known by identity."""

    def __init__(self, file: File) -> None:
        self.source = file.source
        self.text = file.source.text
        self.leading: dict[int, list[Comment]] = {}
        self.trailing: dict[int, list[Comment]] = {}
        self._groups: dict[Key, Group] = {}
        self.top = Group((id(file), "items"), 0, len(self.text), file.items)
        if file.comments:
            for comment in file.comments:
                self._place(comment, self.top)

    def group(self, node: object, kind: str, elements: tuple) -> Group:
        """The group of a node; an empty one where it holds no comment."""
        return self._groups.get((id(node), kind)) or Group((id(node), kind), 0, 0, elements)

    def _place(self, comment: Comment, group: Group) -> None:
        group.busy = True
        self._groups[group.key] = group
        at = comment.span.start
        index = bisect_right(group.elements, at, key=lambda element: element.span.start)
        before = group.elements[index - 1] if index else None
        after = group.elements[index] if index < len(group.elements) else None
        if before and at < before.span.end:
            for inner in self._within(before):
                if inner.open <= at <= inner.close:
                    return self._place(comment, inner)
            self.leading.setdefault(id(before), []).append(comment)
        elif after and comment.text.startswith("/*") and not self._line_ends(comment.span.end, after.span.start):
            self.leading.setdefault(id(after), []).append(comment)
        elif (
            isinstance(before, Section) and isinstance(before.value, tuple) and self._belongs_to_layers(comment, before)
        ):
            layers = next(self._within(before))
            layers.close = at
            self._place(comment, layers)
        elif before and not self._line_ends(self._end(before), at):
            self.trailing.setdefault(id(before), []).append(comment)
        elif not before and group is not self.top and not self._line_ends(group.open, at):
            group.header.append(comment)
        elif after:
            self.leading.setdefault(id(after), []).append(comment)
        else:
            group.dangling.append(comment)
        return None

    def _end(self, element) -> int:
        """Where an element ends, what was put behind it included."""
        behind = self.trailing.get(id(element))
        return behind[-1].span.end if behind else element.span.end

    def _line_ends(self, start: int, end: int) -> bool:
        return "\n" in self.text[start:end]

    def _belongs_to_layers(self, comment: Comment, section: Section) -> bool:
        """After the last statement of `layers:` the line and the indentation tell what a comment is about."""
        if not self._line_ends(section.span.end, comment.span.start):
            return True
        column = self.source.line_column(comment.span.start)[1]
        return column > self.source.line_column(section.span.start)[1]

    # Brackets are not in the tree: they are found again around the elements.

    def _within(self, node: object) -> Iterator[Group]:
        """The groups inside an element that are in no other group."""
        for group in self._direct(node):
            yield self._groups.get(group.key, group)

    def _direct(self, node: object) -> Iterator[Group]:
        match node:
            case Call():
                yield self._brackets(node, "arguments", node.callee.span.end, node.arguments)
            case Sequence():
                yield self._brackets(node, "items", node.span.start, node.items)
            case Map():
                yield self._brackets(node, "entries", node.span.start, node.entries)
            case Unary():
                yield from self._direct(node.operand)
            case Binary():
                yield from self._direct(node.left)
                yield from self._direct(node.right)
            case Argument() | Entry() | Param():
                yield from self._direct(node.value)
            case Parameter():
                yield from self._direct(node.default)
            case Section():
                yield from self._section(node)
            case Statement():
                yield from self._statement(node)
            case Define():
                head = self._brackets(node, "parameters", node.name.span.end, node.parameters)
                yield head
                yield self._brackets(node, "body", head.close + 1, node.body)
            case Network():
                yield self._brackets(node, "sections", node.name.span.end, node.sections)

    def _section(self, node: Section) -> Iterator[Group]:
        if isinstance(node.value, tuple):
            yield Group((id(node), "layers"), node.key.span.end, node.span.end, node.value)
        else:
            yield from self._direct(node.value)

    def _statement(self, node: Statement) -> Iterator[Group]:
        at = node.layer.span.end
        if self.text[self._next(at)] == "(":
            arguments = self._brackets(node, "arguments", at, node.arguments)
            yield arguments
            at = arguments.close + 1
        if node.body is not None:
            yield self._brackets(node, "body", at, node.body)
        yield from self._direct(node.repeat)

    def _brackets(self, node: object, kind: str, start: int, elements: tuple) -> Group:
        begin = self._next(start)
        close = self._next(elements[-1].span.end if elements else begin + 1)
        return Group((id(node), kind), begin, close, elements)

    def _next(self, offset: int) -> int:
        """The next offset at which something stands: not white space, a comment, a comma or a colon."""
        match = _FILLING.match(self.text, offset)
        return match.end() if match else offset
