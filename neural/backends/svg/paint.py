"""Shapes to SVG text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import singledispatch
from xml.sax.saxutils import escape

from neural.backends.svg.cells import CARD_PADDING, DETAIL, FRAME_HEADER, LABEL, NAME, STACK, TITLE, badge_width
from neural.backends.svg.letters import text_width
from neural.backends.svg.palette import BADGE as BADGE_FILL
from neural.backends.svg.palette import (
    FAINT,
    FRAME_FILLS,
    FRAME_HEAD,
    FRAME_LINE,
    INK,
    PAPER,
    PILL_FILL,
    PILL_LINE,
    SOFT,
    TIE,
    WIRE,
    paint,
)
from neural.backends.svg.scene import Card, Dot, Frame, Item, Joint, Label, Pill, Point, Rect, Wire

SANS = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"
CORNER, ARROW = 8.0, 6.0

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(
    width: float, height: float, title: str, description: str, items: Iterable[Item], texts: Iterable[str]
) -> str:
    """A whole SVG file: nothing outside it is needed to show it. texts: elements that are drawn already."""
    body = "\n".join((*texts, *(drawn(item) for item in items)))
    w, h = _n(width), _n(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
        f'font-family="{SANS}">\n<title>{clean(title)}</title>\n<desc>{clean(description)}</desc>\n'
        f'<rect class="paper" width="{w}" height="{h}" rx="10" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )


def clean(text: str) -> str:
    """Text that is only text to XML, in elements and in attributes."""
    return escape(_NOT_XML.sub("\ufffd", text), {'"': "&quot;", "'": "&apos;"})


@singledispatch
def drawn(item: Item) -> str:
    """The elements of one shape."""
    raise TypeError(type(item).__name__)


@drawn.register
def _(item: Card) -> str:
    r, colours = item.rect, paint(item.family)
    y = r.y + (CARD_PADDING + 8.5 if item.detail else r.h / 2 + 4.3)
    x, right = r.x + CARD_PADDING, r.right - CARD_PADDING
    parts = [rectangle(r, 7, colours.fill, colours.line, "box"), _titled(x, y, item.title, item.name)]
    if item.copies > 1:
        parts.append(_badge(right, y, item.copies))
        right -= badge_width(item.copies)
    if item.size:
        parts.append(line_of(right, y, item.size, DETAIL, FAINT, anchor="end"))
    if item.detail:
        parts.append(line_of(x, y + 15, item.detail, DETAIL, SOFT, mono=True))
    return _group("card", item.about, parts)


@drawn.register
def _(item: Frame) -> str:
    r = item.rect
    fill = FRAME_FILLS[(item.depth - 1) % len(FRAME_FILLS)]
    shadows = [rectangle(Rect(r.x + d, r.y + d, r.w, r.h), 11, FRAME_FILLS[0], FRAME_LINE) for d in (2 * STACK, STACK)]
    x, right, y = r.x + CARD_PADDING, r.right - CARD_PADDING, r.y + FRAME_HEADER / 2 + 4.3
    parts = [*(shadows if item.copies > 1 else ()), rectangle(r, 11, fill, FRAME_LINE, "frame"), _header(r)]
    parts.append(_titled(x, y, item.title, item.name))
    if item.copies > 1:
        parts.append(_badge(right, y, item.copies))
        right -= badge_width(item.copies)
    if item.size:
        parts.append(line_of(right, y, item.size, DETAIL, FAINT, anchor="end"))
    return _group("block", item.about, parts)


@drawn.register
def _(item: Joint) -> str:
    (x, y), radius = item.rect.middle, item.rect.w / 2
    colours, arm = paint("merging"), radius * 0.5
    cross = f"M{_n(x - arm)} {_n(y)}h{_n(2 * arm)}M{_n(x)} {_n(y - arm)}v{_n(2 * arm)}"
    turn = f' transform="rotate(45 {_n(x)} {_n(y)})"' if item.sign == "×" else ""
    place = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"'
    circle = f'<circle class="joint" {place} fill="{colours.fill}" stroke="{colours.line}" stroke-width="1.5"/>'
    sign = f'<path d="{cross}" stroke="{colours.line}" stroke-width="1.7" stroke-linecap="round"{turn}/>'
    return _group("merging", item.about, [circle, sign])


@drawn.register
def _(item: Pill) -> str:
    r = item.rect
    (x, y), detail = r.middle, text_width(item.detail, DETAIL, mono=True)
    between = x + (text_width(item.text, TITLE, bold=True) - detail) / 2
    name = line_of(between - 4, y + 4.3, item.text, TITLE, INK, weight=600, anchor="end")
    shape = line_of(between + 4, y + 4.3, item.detail, DETAIL, SOFT, mono=True)
    return _group("end", "", [rectangle(r, r.h / 2, PILL_FILL, PILL_LINE, "box"), name, shape])


@drawn.register
def _(item: Wire) -> str:
    colour, dashes = (TIE, ' stroke-dasharray="4 3"') if item.dashed else (WIRE, "")
    points = item.points
    path = f'<path class="wire" d="{rounded(points)}" fill="none" stroke="{colour}" stroke-width="1.4"{dashes}/>'
    return path + (_arrow(points[-2], points[-1], colour) if item.arrow else "")


@drawn.register
def _(item: Dot) -> str:
    return f'<circle cx="{_n(item.at[0])}" cy="{_n(item.at[1])}" r="2.6" fill="{WIRE}"/>'


@drawn.register
def _(item: Label) -> str:
    return line_of(*item.at, item.text, LABEL, FAINT, mono=True, anchor=item.anchor)


def rectangle(r: Rect, radius: float, fill: str, line: str, kind: str = "") -> str:
    """A rounded rectangle. kind: its class."""
    named = f' class="{kind}"' if kind else ""
    place = f'x="{_n(r.x)}" y="{_n(r.y)}" width="{_n(r.w)}" height="{_n(r.h)}" rx="{_n(radius)}"'
    return f'<rect{named} {place} fill="{fill}" stroke="{line}" stroke-width="1.2"/>'


def line_of(
    x: float, y: float, text: str, size: float, fill: str, *,
    weight: int = 400, mono: bool = False, anchor: str = "start", after: str = "",
) -> str:  # fmt: skip
    """One line of text on its base line. after: what follows on the line, drawn already."""
    more = f' font-weight="{weight}"' if weight != 400 else ""
    more += f' font-family="{MONO}"' if mono else ""
    more += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"{more}>{clean(text)}{after}</text>'


def rounded(points: tuple[Point, ...]) -> str:
    """A path through points, its corners rounded as far as the pieces are long enough."""
    path = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(CORNER, _length(before, corner) / 2, _length(corner, after) / 2)
        (ax, ay), (bx, by) = _toward(corner, before, radius), _toward(corner, after, radius)
        path.append(f"L{_n(ax)} {_n(ay)}Q{_n(corner[0])} {_n(corner[1])} {_n(bx)} {_n(by)}")
    return "".join((*path, f"L{_n(points[-1][0])} {_n(points[-1][1])}"))


def _titled(x: float, y: float, title: str, name: str) -> str:
    after = f'<tspan dx="8" font-weight="400" font-size="{NAME}" fill="{SOFT}">{clean(name)}</tspan>' if name else ""
    return line_of(x, y, title, TITLE, INK, weight=600, after=after)


def _header(r: Rect) -> str:
    x, y, w, h, c = r.x, r.y, r.w, FRAME_HEADER, 11
    outline = (
        f"M{_n(x)} {_n(y + h)}V{_n(y + c)}a{c} {c} 0 0 1 {c} -{c}H{_n(x + w - c)}a{c} {c} 0 0 1 {c} {c}V{_n(y + h)}Z"
    )
    return f'<path d="{outline}" fill="{FRAME_HEAD}" stroke="{FRAME_LINE}" stroke-width="1.2"/>'


def _badge(right: float, y: float, copies: int) -> str:
    w = badge_width(copies) - 6
    pill = f'<rect x="{_n(right - w)}" y="{_n(y - 12.5)}" width="{_n(w)}" height="17" rx="8.5" fill="{BADGE_FILL}"/>'
    return pill + line_of(right - w / 2, y - 0.4, f"× {copies}", DETAIL, PAPER, weight=600, anchor="middle")


def _arrow(before: Point, tip: Point, colour: str) -> str:
    (x, y), (bx, by) = tip, _toward(tip, before, ARROW)
    sx, sy = (by - y) * 0.55, (x - bx) * 0.55
    return f'<path d="M{_n(x)} {_n(y)}L{_n(bx + sx)} {_n(by + sy)}L{_n(bx - sx)} {_n(by - sy)}Z" fill="{colour}"/>'


def _group(kind: str, about: str, parts: list[str]) -> str:
    title = f"<title>{clean(about)}</title>" if about else ""
    return f'<g class="{kind}">{title}{"".join(parts)}</g>'


def _length(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = _length(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * distance / length, start[1] + (end[1] - start[1]) * distance / length


def _n(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")
