"""What a drawing is made of: shapes at places, which `paint` turns to SVG. Units are its pixels; y grows downwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> Point:
        return self.x + self.w / 2, self.y + self.h / 2

    def moved(self, dx: float, dy: float) -> Rect:
        return Rect(self.x + dx, self.y + dy, self.w, self.h)


class _Placed:
    __slots__ = ()

    def moved(self, dx: float, dy: float):
        return replace(self, rect=self.rect.moved(dx, dy))


@dataclass(frozen=True, slots=True)
class Card(_Placed):
    """A layer. title: its kind; name: what the author calls it; detail: its arguments; size: its parameters."""

    rect: Rect
    family: str
    title: str
    name: str
    detail: str
    size: str
    copies: int
    about: str  # all there is to say, shown under the mouse


@dataclass(frozen=True, slots=True)
class Frame(_Placed):
    """A block, around what it holds. depth: how many frames it stands in."""

    rect: Rect
    title: str
    name: str
    size: str
    copies: int
    depth: int
    about: str


@dataclass(frozen=True, slots=True)
class Joint(_Placed):
    """Where values meet, number by number: a circle with + or ×."""

    rect: Rect
    sign: str
    about: str


@dataclass(frozen=True, slots=True)
class Pill(_Placed):
    """What goes into the network or comes out."""

    rect: Rect
    text: str
    detail: str


@dataclass(frozen=True, slots=True)
class Wire:
    """A value on its way, in horizontal and vertical pieces. dashed: a weight that two layers share."""

    points: tuple[Point, ...]
    arrow: bool = True
    dashed: bool = False

    def moved(self, dx: float, dy: float) -> Wire:
        return replace(self, points=tuple((x + dx, y + dy) for x, y in self.points))


@dataclass(frozen=True, slots=True)
class Dot:
    """Where a value branches."""

    at: Point

    def moved(self, dx: float, dy: float) -> Dot:
        return Dot((self.at[0] + dx, self.at[1] + dy))


@dataclass(frozen=True, slots=True)
class Label:
    """Small text that starts or ends at a point of its base line: the shape of a value."""

    at: Point
    text: str
    anchor: Literal["start", "end", "middle"] = "start"

    def moved(self, dx: float, dy: float) -> Label:
        return replace(self, at=(self.at[0] + dx, self.at[1] + dy))


Item = Card | Frame | Joint | Pill | Wire | Dot | Label


@dataclass(frozen=True, slots=True)
class Picture:
    """Items in a frame of their own, from (0, 0) to (w, h). axis: where the main line enters and leaves."""

    w: float
    h: float
    items: tuple[Item, ...]

    @property
    def axis(self) -> float:
        return self.w / 2
