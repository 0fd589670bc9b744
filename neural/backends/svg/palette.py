"""Colours: one for each family of layers, which is the module that a layer stands in."""

from __future__ import annotations

from typing import NamedTuple


class Paint(NamedTuple):
    """A family's name in the legend, and its colours."""

    label: str
    fill: str
    line: str


FAMILIES = {
    "embedding": Paint("embedding", "#fde4e8", "#d9738b"),
    "attention": Paint("attention", "#ffe6c9", "#dd8a35"),
    "dense": Paint("dense", "#dfeafc", "#5587d3"),
    "normalization": Paint("normalization", "#fbf2c0", "#c4a31f"),
    "activation": Paint("activation", "#dcf3e0", "#4fa264"),
    "merging": Paint("sum, product", "#ffffff", "#475569"),
    "reshaping": Paint("dropout, shape", "#eceaf6", "#8f83b8"),
    "pooling": Paint("pooling", "#e3f4f4", "#4a9a9c"),
    "block": Paint("block, closed", "#eef1f6", "#7c889c"),
}

INK, SOFT, FAINT = "#1e293b", "#475569", "#64748b"
PAPER, WIRE, TIE = "#ffffff", "#64748b", "#a855a0"
FRAME_FILLS = ("#f6f8fb", "#ffffff")  # by depth, in turn
FRAME_HEAD, FRAME_LINE = "#e6ebf3", "#b4bfcf"
BADGE = "#334155"
PILL_FILL, PILL_LINE = "#f1f5f9", "#94a3b8"


def paint(family: str) -> Paint:
    """The colours of a family; a family without its own is teal under its module's name."""
    return FAMILIES.get(family, Paint(family.replace("_", " "), "#ddf3ef", "#3f978a"))
