"""The whole sheet: title, network, legend."""

from __future__ import annotations

from neural.backends.svg import paint
from neural.backends.svg.cells import DETAIL, GAP, TITLE, Cell, written
from neural.backends.svg.layout import Slot, arrange
from neural.backends.svg.letters import fitted, text_width
from neural.backends.svg.palette import FAINT, FAMILIES, INK, SOFT, TIE
from neural.backends.svg.palette import paint as paint_of
from neural.backends.svg.scene import Card, Frame, Joint, Picture, Pill, Rect, Wire
from neural.graph.graph import Block, Network, count_parameters
from neural.layers.values import Value

MARGIN = 28.0
HEADING, UNDER_HEADING = 21.0, 11.5
HEAD = 66.0  # title and line below it
PILL_HEIGHT = 28.0
SWATCH, LEGEND_LINE = 12.0, 22.0
LEAST_WIDTH, GREATEST_TITLE = 300.0, 420.0
MOST_CARDS = 400  # deeper blocks are closed where there would be more


def emit(network: Network) -> str:
    """The network as SVG text.

    Frames are blocks as the author wrote them, nested; numbers of parameters are those of one copy. Where there would
    be more than 400 cards, the deepest blocks are drawn closed.
    """
    block = network.block
    picture = _network(network)
    title, under = fitted(network.name, GREATEST_TITLE, HEADING, bold=True), _facts(network)
    legend = _legend(picture)
    wide = max(text_width(title, HEADING, bold=True), text_width(under, UNDER_HEADING), LEAST_WIDTH)
    width = max(picture.w, wide) + 2 * MARGIN
    rows = _legend_rows(legend, width - 2 * MARGIN)
    top = MARGIN + HEAD
    height = top + picture.h + MARGIN + LEGEND_LINE * len(rows) + MARGIN / 2
    dx = (width - picture.w) / 2
    items = [item.moved(dx, top) for item in picture.items]
    head = [
        paint.line_of(width / 2, MARGIN + 20, title, HEADING, INK, weight=700, anchor="middle"),
        paint.line_of(width / 2, MARGIN + 41, under, UNDER_HEADING, SOFT, anchor="middle"),
    ]
    foot = [_legend_row(row, width, top + picture.h + MARGIN + LEGEND_LINE * i) for i, row in enumerate(rows)]
    description = f"Architecture of {network.name}, {count_parameters(block):,} parameters, drawn by neural visualize."
    return paint.document(width, height, network.name, description, items, [*head, *foot])


def _network(network: Network) -> Picture:
    block, output = network.block, network.block.outputs[0]
    tops = [_pill(f"input {v.name}", v.name, v, (), (v,)) for v in block.inputs]
    said = "logits" if network.activation else "output"
    ends = [_pill(f"output {n}", said if n == output else n, block.value(n), (n,), ()) for n in block.outputs]
    return arrange(block, "", 1, _deepest(block), tops, ends)


def _pill(key: str, text: str, value: Value, reads: tuple[str, ...], makes: tuple[Value, ...]) -> Slot:
    text = fitted(text, 200, TITLE, bold=True)
    detail = f"{written(value.shape)} {value.dtype}"
    w = text_width(text, TITLE, bold=True) + GAP + text_width(detail, DETAIL, mono=True) + PILL_HEIGHT
    cell = Cell(w, PILL_HEIGHT, "pill", lambda rect: (Pill(rect, text, detail),))
    return Slot(key, cell, reads, makes)


def _facts(network: Network) -> str:
    facts = [f"{count_parameters(network.block):,} parameters"]
    if network.context is not None:
        facts.append(f"{network.context:,} tokens of context")
    if network.vocab_size is not None:
        facts.append(f"vocabulary of {network.vocab_size:,}")
    return "  ·  ".join(facts)


def _deepest(block: Block) -> int:
    """How many frames deep the drawing can go before it has too many cards."""
    deepest, level = 0, [block]
    cards = len(block.nodes)
    while level := [n.layer for b in level for n in b.nodes if isinstance(n.layer, Block)]:
        cards += sum(len(b.nodes) for b in level)
        if cards > MOST_CARDS:
            break
        deepest += 1
    return deepest + 1


def _legend(picture: Picture) -> list[tuple[str, str, str]]:
    """Label, fill and line of all that there is to explain, in the palette's order."""
    families = {i.family for i in picture.items if isinstance(i, Card)}
    families |= {"merging"} if any(isinstance(i, Joint) for i in picture.items) else set()
    order = [f for f in FAMILIES if f in families] + sorted(families - set(FAMILIES))
    found = [tuple(paint_of(f)) for f in order]
    if any(isinstance(i, Frame) for i in picture.items):
        found.append(("block", "#e6ebf3", "#b4bfcf"))
    if any(isinstance(i, Wire) and i.dashed for i in picture.items):
        found.append(("shared weight", "", TIE))
    return found


def _legend_rows(entries: list[tuple[str, str, str]], room: float) -> list[list[tuple[str, str, str]]]:
    rows: list[list[tuple[str, str, str]]] = [[]]
    for entry in entries:
        if rows[-1] and sum(_entry_width(e) for e in (*rows[-1], entry)) > room:
            rows.append([])
        rows[-1].append(entry)
    return [row for row in rows if row]


def _entry_width(entry: tuple[str, str, str]) -> float:
    return SWATCH + 6 + text_width(entry[0], DETAIL) + 16


def _legend_row(row: list[tuple[str, str, str]], width: float, y: float) -> str:
    x = (width - sum(_entry_width(e) for e in row) + 16) / 2
    parts = []
    for entry in row:
        label, fill, line = entry
        if fill:
            parts.append(paint.rectangle(Rect(x, y, SWATCH, SWATCH), 3.5, fill, line))
        else:
            middle = y + SWATCH / 2
            parts.append(paint.drawn(Wire(((x, middle), (x + SWATCH, middle)), arrow=False, dashed=True)))
        parts.append(paint.line_of(x + SWATCH + 6, y + 9.6, label, DETAIL, FAINT))
        x += _entry_width(entry)
    return "".join(parts)
