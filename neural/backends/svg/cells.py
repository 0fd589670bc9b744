"""From a node to its shape: what is written in it and how large it must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import NamedTuple

from neural.backends.svg.letters import fitted, text_width
from neural.backends.svg.scene import Card, Frame, Item, Joint, Picture, Rect
from neural.graph.graph import Block, Node, count_parameters
from neural.layers.layer import Layer
from neural.layers.values import Arg, Shape, Value

TITLE, NAME, DETAIL, LABEL = 12.5, 11.5, 10.0, 9.5  # sizes of letters
CARD_PADDING, LINE = 11.0, 15.0
NARROWEST, WIDEST = 132.0, 392.0
JOINT = 24.0
FRAME_HEADER = 30.0
STACK = 4.0  # how far each of the two shadows of a repeated frame stands out
BADGE = 9.0  # padding of "× 12", on both sides
GAP = 13.0

SIGNS = {"+": "+", "*": "×"}


class Site(NamedTuple):
    """Where a node stands."""

    block: Block
    values: dict[str, Value]
    path: str
    depth: int


@dataclass(frozen=True)
class Cell:
    """A shape before it has a place: its least size, and the items it becomes in a rectangle of that size or wider.

    tail: how far above the lower edge of the rectangle the shape itself ends.
    """

    w: float
    h: float
    kind: str  # "card", "joint" or "frame"
    items: Callable[[Rect], tuple[Item, ...]]
    tail: float = 0.0


def primitive(node: Node, site: Site) -> Cell:
    """A layer: a circle for a sum or product, a card for all others."""
    about = _about(node, site)
    if (sign := SIGNS.get(getattr(node.layer, "operator", ""))) and node.copies == 1:
        return Cell(JOINT, JOINT, "joint", lambda rect: (Joint(_centred(rect, JOINT), sign, about),))
    tie = next((t.source for t in site.block.ties if t.target == node.name), None)
    size = f"tied to {tie}" if tie else _short(parameters(node, site) // node.copies)
    kind = type(node.layer)
    family = kind.__module__.rpartition(".")[2]
    return card(family, kind.__name__, node, _arguments(node.layer), size, about)


def closed(node: Node, site: Site) -> Cell:
    """A block whose inside is left out."""
    size = _short(count_parameters(node.layer))
    return card("block", node.layer.name, node, "", size, _about(node, site))


def card(family: str, title: str, node: Node, detail: str, size: str, about: str) -> Cell:
    """A card as wide as its text, within bounds; longer text is cut."""
    name = node.name if node.named else ""
    badge = badge_width(node.copies)
    room = WIDEST - 2 * CARD_PADDING - badge
    detail = fitted(detail, room, DETAIL, mono=True)
    title = fitted(title, room / 2, TITLE, bold=True)
    size = fitted(size, room / 3, DETAIL)
    name = fitted(name, room - text_width(title, TITLE, bold=True) - text_width(size, DETAIL) - 2 * GAP, NAME)
    first = text_width(title, TITLE, bold=True) + sum(
        GAP + text_width(t, s) for t, s in ((name, NAME), (size, DETAIL)) if t
    )
    w = max(first + badge, text_width(detail, DETAIL, mono=True)) + 2 * CARD_PADDING
    h = 2 * CARD_PADDING + LINE * (2 if detail else 1) - 6

    def items(rect: Rect) -> tuple[Item, ...]:
        return (Card(rect, family, title, name, detail, size, node.copies, about),)

    return Cell(min(max(w, NARROWEST), WIDEST), h, "card", items)


def frame(node: Node, inside: Picture, site: Site) -> Cell:
    """A block around its inside."""
    name = fitted(node.name if node.named else "", WIDEST / 2, NAME)
    title = fitted(node.layer.name, WIDEST / 2, TITLE, bold=True)
    size, about = _short(count_parameters(node.layer)), _about(node, site)
    header = (
        text_width(title, TITLE, bold=True)
        + text_width(name, NAME)
        + text_width(size, DETAIL)
        + badge_width(node.copies)
    )
    shadow = 2 * STACK if node.copies > 1 else 0.0
    w = max(inside.w, header + 2 * CARD_PADDING + 3 * GAP) + 2 * shadow
    h = FRAME_HEADER + inside.h + shadow

    def items(rect: Rect) -> tuple[Item, ...]:
        own = Rect(rect.x + shadow, rect.y, rect.w - 2 * shadow, rect.h - shadow)
        dx, dy = own.x + (own.w - inside.w) / 2, own.y + FRAME_HEADER
        around = Frame(own, title, name, size, node.copies, site.depth, about)
        return (around, *(i.moved(dx, dy) for i in inside.items))

    return Cell(w, h, "frame", items, shadow)


def badge_width(copies: int) -> float:
    """Room for "× 12" and the gap before it."""
    return text_width(f"× {copies}", DETAIL, bold=True) + 2 * BADGE + 6 if copies > 1 else 0.0


def parameters(node: Node, site: Site) -> int:
    """Numbers that training changes in a node, all copies; none where they are another node's."""
    if isinstance(node.layer, Block):
        return node.copies * count_parameters(node.layer)
    shared = {t.target for t in site.block.ties}
    weights = node.layer.weights(*(site.values[i] for i in node.inputs))
    return node.copies * sum(
        prod(w.shape) for w in weights if w.trained and not (w.name == "weight" and node.name in shared)
    )


def written(shape: Shape) -> str:
    """(B, T, 768)."""
    return "(" + ", ".join(a.axis or str(a.value) for a in shape) + ("," if len(shape) == 1 else "") + ")"


def _arguments(layer: Layer) -> str:
    """Those that are not the defaults, as the language writes them."""
    given = ((f.name, getattr(layer, f.name), f.default) for f in fields(layer))
    return ", ".join(f"{n}={_value(a.value)}" for n, a, d in given if d is MISSING or a.value != d.value)


def _value(value) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "(" + ", ".join(_value(v.value if isinstance(v, Arg) else v) for v in value) + ")"
    return repr(value) if isinstance(value, int | float) else f"{type(value).__name__}({_arguments(value)})"


def _about(node: Node, site: Site) -> str:
    inside = "" if isinstance(node.layer, Block) else _arguments(node.layer)
    kind = node.layer.name if isinstance(node.layer, Block) else type(node.layer).__name__
    inputs = ", ".join(written(site.values[i].shape) for i in node.inputs)
    outputs = ", ".join(written(v.shape) for v in node.outputs)
    lines = [
        f"{kind}({inside})" + (f" × {node.copies}" if node.copies > 1 else ""),
        site.path + node.name,
        f"{inputs} → {outputs}",
    ]
    if count := parameters(node, site):
        lines.append(f"{count:,} parameters")
    return "\n".join(lines)


def _short(n: int) -> str:
    """Three digits and K, M, B or T, as papers count parameters; nothing for none."""
    power = min((len(str(n)) - 1) // 3, 4)
    if n == 0 or power == 0:
        return str(n) if n else ""
    x = n / 1000**power
    if x >= 999.5 and power < 4:
        x, power = x / 1000, power + 1
    return (f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}") + " " + "KMBT"[power - 1]


def _centred(rect: Rect, side: float) -> Rect:
    x, y = rect.middle
    return Rect(x - side / 2, y - side / 2, side, side)
