"""The lines between the rows of a block.

A line between neighbouring rows goes straight down, or sideways on a track of its own in the gap between them. A line
that passes rows over, such as a residual connection, runs in a lane to the right of all rows; shared weights run to the
left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from neural.backends.svg.scene import Dot, Item, Point, Wire

if TYPE_CHECKING:
    from neural.backends.svg.layout import Slot

FIRST_TRACK, TRACK, LAST_TRACK = 18.0, 9.0, 18.0  # from the row above, between tracks, to the row below
STRAIGHT = 30.0  # a gap without tracks
FIRST_LANE, LANE, LAST_LANE = 18.0, 12.0, 14.0
PORT_MARGIN, PORT_SPACE, SIDE_SPACE, BESIDE = 14.0, 12.0, 8.0, 8.0
NEAR, ALMOST = 0.5, 12.0  # differences that are rounding, and that are better hidden


@dataclass(eq=False)
class Edge:
    """One value on its way to one reader.

    entry: where it comes in. port: where on the top, from the axis; where on a side, from the middle.
    """

    value: str
    source: Slot
    target: Slot
    entry: str = "top"
    port: float = 0.0

    @property
    def far(self) -> bool:
        return self.target.row > self.source.row + 1

    @property
    def way(self) -> str:
        """Where it goes on the first track."""
        if self.far:
            return "right"
        ahead = self.port - self.source.x if self.entry == "top" else 0
        return "right" if ahead > NEAR else "left" if ahead < -NEAR else "down"


@dataclass
class Routes:
    """All lines of a block; they become wires once the rows have their heights (`below`)."""

    edges: list[Edge]
    ties: list[tuple[Slot, Slot]]
    tracks: dict[tuple[int, str], int]  # by gap and value
    lanes: dict[str, int]  # by value
    below: dict[int, float] = field(default_factory=dict)  # the lower end of each row

    @property
    def side(self) -> float:
        """Room that lanes need on either side."""
        n = max(1 + max(self.lanes.values(), default=-1), len(self.ties))
        return FIRST_LANE + LANE * (n - 1) + LAST_LANE if n else 0.0

    def gap(self, row: int) -> float:
        """Height between a row and the next."""
        n = 1 + max((t for (gap, _), t in self.tracks.items() if gap == row), default=-1)
        return FIRST_TRACK + TRACK * (n - 1) + LAST_TRACK if n else STRAIGHT

    def wires(self, axis: float, width: float) -> list[Item]:
        """Wires and dots, the axis at x = `axis` and rows `width` wide."""
        found: list[Item] = []
        branches = self._branches(axis)
        for edge in self.edges:
            points, branch = self._points(edge, axis, width), branches.get((edge.source.row, edge.value))
            if branch and len(points) > 2 and points[1] == branch:
                points = points[1:]  # the way to the dot is drawn once, and the corner at it is sharp
            found.append(Wire(points, edge.target.cell.kind != "port"))
        for (row, value), at in branches.items():
            foot = next(e.source.foot for e in self.edges if e.value == value and e.source.row == row)
            found += [Wire(((at[0], foot), at), arrow=False), Dot(at)]
        for i, (source, target) in enumerate(self.ties):
            x = axis - width / 2 - FIRST_LANE - LANE * i
            (_, a), (_, b) = source.rect.middle, target.rect.middle
            points = ((axis + source.rect.x, a), (x, a), (x, b), (axis + target.rect.x, b))
            found.append(Wire(points, arrow=False, dashed=True))
        return found

    def _track(self, row: int, value: str) -> float:
        return self.below[row] + FIRST_TRACK + TRACK * self.tracks[row, value]

    def _points(self, edge: Edge, axis: float, width: float) -> tuple[Point, ...]:
        source, target = edge.source, edge.target
        x, px = axis + source.x, axis + edge.port
        points: list[Point] = [(x, source.foot)]
        if edge.far:
            lane = axis + width / 2 + FIRST_LANE + LANE * self.lanes[edge.value]
            y = self._track(source.row, edge.value)
            points += [(x, y), (lane, y)]
            x = lane
        level = target.rect.middle[1]
        if edge.entry == "top":
            if abs(x - px) > NEAR:
                y = self._track(target.row - 1, edge.value)
                points += [(x, y), (px, y)]
            points.append((px, target.rect.y + _inward(target, edge.port - target.x)))
        else:
            depth = _inward(target, edge.port)
            side = target.rect.x + depth if edge.entry == "left" else target.rect.right - depth
            points += [(x, level + edge.port), (axis + side, level + edge.port)]
        return tuple(points)

    def _branches(self, axis: float) -> dict[tuple[int, str], Point]:
        """Where a value turns into a track and also goes on, or turns both ways."""
        found = {}
        for row, value in self.tracks:
            leaving = [e for e in self.edges if e.value == value and e.source.row == row]
            if len({e.way for e in leaving}) > 1:
                found[row, value] = axis + leaving[0].source.x, self._track(row, value)
        return found


def route(rows: list[list[Slot]], ties: list[tuple[Slot, Slot]]) -> Routes:
    """Choose for every line where it enters, its track and its lane."""
    makers = {v.name: s for row in rows for s in row for v in s.makes}
    edges = [Edge(name, makers[name], slot) for row in rows for slot in row for name in slot.reads]
    for row in rows:
        for slot in row:
            _enter(slot, row, [e for e in edges if e.target is slot])
    lanes = _lanes(edges)
    for row in rows:
        for slot in row:
            _spread([e for e in edges if e.target is slot and e.far and e.entry == "right"], lanes)
    return Routes(edges, ties, _tracks(edges), lanes)


def _enter(slot: Slot, row: list[Slot], edges: list[Edge]) -> None:
    """Through the top; but from afar into a card or circle from the right, and into a circle from where they stand."""
    taken: set[str] = set()
    for edge in edges:
        if edge.far and row[-1] is slot and slot.cell.kind in ("card", "joint"):
            edge.entry = "right"
            taken.add("right")
    if slot.cell.kind == "joint" and len(row) == 1:
        beside = slot.rect.w / 2 + BESIDE
        for edge in edges:
            way = "left" if edge.source.x < slot.x - beside else "right" if edge.source.x > slot.x + beside else "top"
            if not edge.far and way not in taken:
                edge.entry = way
                taken.add(way)
    _ports(slot, [e for e in edges if e.entry == "top"])


def _spread(edges: list[Edge], lanes: dict[str, int]) -> None:
    """Lines that come in from the right do so one above the other, those of outer lanes below: they do not cross."""
    for i, edge in enumerate(sorted(edges, key=lambda e: lanes[e.value])):
        edge.port = _offset(i, len(edges), edge.target)


def _offset(i: int, n: int, slot: Slot) -> float:
    """Where the i-th of n lines meets a side or a circle, from its middle."""
    return (i - (n - 1) / 2) * min(SIDE_SPACE, slot.cell.h * 0.7 / n)


def _inward(slot: Slot, offset: float) -> float:
    """How far inside its rectangle a circle's edge is, off its middle."""
    radius = slot.rect.h / 2
    return radius - (radius**2 - offset**2) ** 0.5 if slot.cell.kind == "joint" else 0.0


def _ports(slot: Slot, edges: list[Edge]) -> None:
    wanted = [inf if e.far else e.source.x for e in edges]
    left, right = slot.rect.x + PORT_MARGIN, slot.rect.right - PORT_MARGIN
    edges = [e for _, e in sorted(zip(wanted, edges, strict=True), key=lambda pair: pair[0])]
    wanted.sort()
    apart = all(b - a >= PORT_SPACE for a, b in pairwise(wanted))
    fits = len(edges) > 1 and apart and left <= wanted[0] and wanted[-1] <= right
    if len(edges) == 1 and slot.cell.kind != "joint" and abs(wanted[0] - slot.x) < ALMOST:
        edges[0].port = wanted[0]  # a line that is all but straight looks like a mistake
        return
    for i, edge in enumerate(edges):
        joint = slot.x + _offset(i, len(edges), slot)
        spread = joint if slot.cell.kind == "joint" else slot.rect.x + slot.rect.w * (i + 1) / (len(edges) + 1)
        edge.port = wanted[i] if fits else spread


def _tracks(edges: list[Edge]) -> dict[tuple[int, str], int]:
    """A track for every value that runs sideways in a gap; values whose runs overlap have different ones."""
    runs: dict[tuple[int, str], tuple[float, float]] = {}

    def add(gap: int, value: str, *ends: float) -> None:
        old = runs.get((gap, value), (inf, -inf))
        runs[gap, value] = min(old[0], *ends), max(old[1], *ends)

    for edge in edges:
        if edge.far:
            add(edge.source.row, edge.value, edge.source.x, inf)
        if edge.entry == "top" and (edge.far or abs(edge.source.x - edge.port) > NEAR):
            add(edge.target.row - 1, edge.value, edge.port, inf if edge.far else edge.source.x)
    found: dict[tuple[int, str], int] = {}
    for (gap, value), (low, high) in sorted(runs.items(), key=lambda run: run[1]):
        taken = {found[k] for k in found if k[0] == gap and runs[k][0] <= high and low <= runs[k][1]}
        found[gap, value] = next(n for n in range(len(runs)) if n not in taken)
    return found


def _lanes(edges: list[Edge]) -> dict[str, int]:
    """A lane for every value that passes rows over; short ways run nearest to the rows."""
    spans: dict[str, tuple[int, int]] = {}
    for edge in (e for e in edges if e.far):
        spans[edge.value] = edge.source.row, max(edge.target.row, spans.get(edge.value, (0, 0))[1])
    found: dict[str, int] = {}
    for value, (low, high) in sorted(spans.items(), key=lambda span: (span[1][1] - span[1][0], span[1])):
        taken = {found[v] for v in found if spans[v][0] < high and low < spans[v][1]}
        found[value] = next(n for n in range(len(spans)) if n not in taken)
    return found
