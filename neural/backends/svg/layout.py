"""Where the nodes of a block stand: in rows, each below all that it reads, around one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from neural.backends.svg.cells import LABEL, Cell, Site, closed, frame, primitive, written
from neural.backends.svg.letters import text_width
from neural.backends.svg.scene import Item, Label, Picture, Rect
from neural.backends.svg.wires import Routes, route
from neural.graph.graph import Block, Tie
from neural.layers.values import Value

COLUMN_GAP = 18.0
SIDE = 18.0  # left and right of the rows of a frame
LABEL_MARGIN = 10.0


@dataclass(eq=False)
class Slot:
    """A shape with what it reads and makes. The ends of a block are slots too: a frame's ports, the network's pills."""

    key: str
    cell: Cell
    reads: tuple[str, ...]
    makes: tuple[Value, ...]
    row: int = 0
    rect: Rect = field(default_factory=lambda: Rect(0, 0, 0, 0))
    labels: dict[str, str] = field(default_factory=dict)  # by value: a shape worth writing beside the line

    @property
    def x(self) -> float:
        return self.rect.middle[0]

    @property
    def foot(self) -> float:
        """Where lines leave it."""
        return self.rect.bottom - self.cell.tail


PORT = Cell(0.0, 0.0, "port", lambda rect: ())


def inside(block: Block, path: str, depth: int, deepest: int) -> Picture:
    """The inside of a frame."""
    tops = [Slot(f"input {v.name}", PORT, (), (v,), labels={v.name: written(v.shape)}) for v in block.inputs]
    ends = [Slot(f"output {name}", PORT, (name,), ()) for name in block.outputs]
    return arrange(block, path, depth, deepest, tops, ends)


def arrange(block: Block, path: str, depth: int, deepest: int, tops: Sequence[Slot], ends: Sequence[Slot]) -> Picture:
    """A block between slots for its inputs and its outputs."""
    middle = _slots(block, path, depth, deepest)
    rows = _rows([*tops, *middle, *ends], len(tops), len(ends))
    _columns(rows)
    routes = route(rows, _tied(block.ties, rows))
    width = max(sum(s.rect.w for s in row) + COLUMN_GAP * (len(row) - 1) for row in rows)
    half = width / 2 + max(SIDE, routes.side)
    _rows_down(rows, routes)
    lines = routes.wires(half, width)
    items: list[Item] = []
    for slot in (s for row in rows for s in row):
        slot.rect = slot.rect.moved(half, 0)
        items += slot.cell.items(slot.rect)
        items += [Label((slot.x + 6, slot.foot + 11), text) for text in slot.labels.values()]
    return Picture(2 * half, rows[-1][0].rect.bottom, (*items, *lines))


def _slots(block: Block, path: str, depth: int, deepest: int) -> list[Slot]:
    values, found = block.values(), []
    for node in block.nodes:
        site = Site(block, values, path, depth)
        if not isinstance(node.layer, Block):
            cell = primitive(node, site)
        elif depth < deepest:
            cell = frame(node, inside(node.layer, f"{path}{node.name}.", depth + 1, deepest), site)
        else:
            cell = closed(node, site)
        slot = Slot(node.name, cell, tuple(dict.fromkeys(node.inputs)), node.outputs)
        before = written(values[node.inputs[0]].shape)
        slot.labels = {v.name: text for v in node.outputs if (text := written(v.shape)) != before}
        found.append(slot)
    return found


def _rows(slots: list[Slot], n_tops: int, n_ends: int) -> list[list[Slot]]:
    """Every slot one row below the lowest of what it reads, and the ends together in the last."""
    makers = {v.name: s for s in slots for v in s.makes}
    for slot in slots[n_tops:]:
        slot.row = 1 + max(makers[name].row for name in slot.reads)
    last = max((s.row for s in slots[n_tops : len(slots) - n_ends]), default=0) + 1
    for slot in slots[len(slots) - n_ends :]:
        slot.row = last
    rows: list[list[Slot]] = [[s for s in slots if s.row == r] for r in range(last + 1)]
    readers = {v.name: [t for t in slots if v.name in t.reads] for s in slots for v in s.makes}
    for slot in slots:
        # a pill has the shape in it
        slot.labels = {n: t for n, t in slot.labels.items() if any(r.cell.kind != "pill" for r in readers[n])}
    for row in rows[1:]:
        place = {v.name: i - (len(r) - 1) / 2 for r in rows for i, s in enumerate(r) for v in s.makes}
        reach = {s.key: any(t.row > s.row + 1 for v in s.makes for t in readers[v.name]) for s in row}
        # below what they read; those that are read from afar to the right, where the lanes are
        row.sort(key=lambda s: (reach[s.key], sum(place[n] for n in s.reads) / len(s.reads)))
    return rows


def _columns(rows: list[list[Slot]]) -> None:
    """Widths, and places around an axis at 0: the cards of rows with as many slots are equally wide."""
    widths: dict[int, float] = {}
    for row in rows:
        for slot in (s for s in row if s.cell.kind == "card"):
            labels = 2 * LABEL_MARGIN + 2 * max(
                (text_width(t, LABEL, mono=True) for t in slot.labels.values()), default=0
            )
            widths[len(row)] = max(widths.get(len(row), 0), slot.cell.w, labels if len(row) > 1 else 0)
    for row in rows:
        stretched = [widths[len(row)] if s.cell.kind == "card" else s.cell.w for s in row]
        x = -(sum(stretched) + COLUMN_GAP * (len(row) - 1)) / 2
        for slot, w in zip(row, stretched, strict=True):
            slot.rect = Rect(x, 0, w, slot.cell.h)
            x += w + COLUMN_GAP


def _rows_down(rows: list[list[Slot]], routes: Routes) -> None:
    """Rows under one another, with room between them for the lines."""
    y = 0.0
    for r, row in enumerate(rows):
        height = max(s.rect.h for s in row)
        for slot in row:
            slot.rect = slot.rect.moved(0, y + (height - slot.rect.h) / 2)
        routes.below[r] = y + height
        y += height + (routes.gap(r) if r + 1 < len(rows) else 0)


def _tied(ties: tuple[Tie, ...], rows: list[list[Slot]]) -> list[tuple[Slot, Slot]]:
    """Ties that a line on the left can show; all are written on the card of the one that has no weight of its own."""
    first = {row[0].key: row[0] for row in rows}
    return [(first[t.source], first[t.target]) for t in ties if {t.source, t.target} <= first.keys()]
