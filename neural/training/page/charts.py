"""Curves of a run as inline SVG: lines that stretch with the page, words that do not, values where the pointer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from neural.training.metrics import Record
from neural.training.series import Point, Series, limits

POINTS = 800  # of a line, at most
ROWS = 24  # of the table beneath a chart, at most
SIDE = 1000  # of the square that is stretched over a chart
TICKS = 4
SCALES = {"memory": 2**30}


@dataclass(frozen=True, slots=True)
class Line:
    """name: for the legend. kind: its class in the style sheet. dots: marks in place of a line."""

    name: str
    kind: str
    points: Sequence[Point]
    dots: bool = False


def charts(records: list[Record], last: int, *, asks_accuracy: bool) -> str:
    """All charts of a run of `last` steps; a number that was never measured has none."""
    main = [Line("training", "train", _of(records, "train", "loss"))]
    main.append(Line("validation", "validation", _of(records, "validation", "loss"), dots=True))
    found = [_chart("Loss", "nats a token", main, last, lambda x: f"{x:.4f}", wide=True)]
    small = [
        ("Learning rate", "", "train", "learning_rate", lambda x: f"{x:.3g}"),
        ("Gradient norm", "before it is clipped", "train", "gradient_norm", lambda x: f"{x:.3g}"),
        ("Speed", "tokens a second", "train", "tokens_per_second", lambda x: f"{x:,.0f}"),
        ("Share of peak", "of what a product of matrices reaches", "train", "peak_share", _percent),
        ("Memory", "GiB, the most so far", "train", "memory", lambda x: f"{x:.2f}"),
    ]
    if asks_accuracy:
        small.append(("Accuracy", "of the next token, on text held out", "validation", "accuracy", _percent))
    for title, unit, kind, name, shown in small:
        points = [(step, value / SCALES.get(name, 1)) for step, value in _of(records, kind, name)]
        found.append(_chart(title, unit, [Line(title.lower(), kind, points)], last, shown))
    return f'<div class="charts">{"".join(found)}</div>' if any(found) else ""


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _of(records: list[Record], kind: str, name: str) -> list[Point]:
    series = Series(POINTS)
    for record in records:
        if record["kind"] == kind and record.get(name) is not None:
            series.add(record["step"], record[name])
    return series.points


def _chart(
    title: str, unit: str, lines: list[Line], last: int, shown: Callable[[float], str], *, wide: bool = False
) -> str:
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    low, high = limits(sorted(point for line in lines for point in line.points))
    if not wide:
        low = min(low, 0.0)
    drawn = "".join(_drawn(line, last, low, high) for line in lines)
    ticks = [(value, 100 * (value - low) / (high - low)) for value in _ticks(low, high)]
    grid = "".join(f'<line x1="0" x2="{SIDE}" y1="{SIDE - 10 * y:.1f}" y2="{SIDE - 10 * y:.1f}"/>' for _, y in ticks)
    names = "".join(
        f'<span class="y" style="bottom:{y:.2f}%">{escape(_short(value, shown))}</span>' for value, y in ticks
    )
    steps = "".join(f'<span class="x" style="left:{x}%">{last * x // 100:,}</span>' for x in (0, 50, 100))
    data = [{"name": line.name, "points": [[s, shown(v), v] for s, v in line.points]} for line in lines]
    legend = "".join(f'<span class="key {line.kind}">{escape(line.name)}</span>' for line in lines) * (len(lines) > 1)
    ends = "; ".join(f"{line.name} from {shown(line.points[0][1])} to {shown(line.points[-1][1])}" for line in lines)
    limit = escape(json.dumps({"last": last, "low": low, "high": high, "lines": data}, ensure_ascii=False))
    return (
        f'<figure class="chart{" wide" * wide}" data-chart="{limit}">'
        f"<figcaption><strong>{escape(title)}</strong> <small>{escape(unit)}</small>{legend}<output></output>"
        f'</figcaption><div class="plot" tabindex="0" role="img" aria-label="{escape(title)} by step: {escape(ends)}">'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" aria-hidden="true"><g class="grid">{grid}</g>'
        f"{drawn}"
        f'<line class="cursor" y1="0" y2="{SIDE}"/></svg>{names}{steps}</div>{_table(lines, shown)}</figure>'
    )


def _drawn(line: Line, last: int, low: float, high: float) -> str:
    def place(point: Point) -> str:
        return f"{SIDE * point[0] / max(last, 1):.1f},{SIDE - SIDE * (point[1] - low) / (high - low):.1f}"

    if line.dots:  # a line of no length with round ends is a round dot, however the picture is stretched
        return f'<path class="{line.kind} dots" d="{"".join(f"M{place(p)}h0" for p in line.points)}"/>'
    if len(line.points) == 1:
        return f'<path class="{line.kind} dots" d="M{place(line.points[0])}h0"/>'
    return f'<polyline class="{line.kind}" points="{" ".join(map(place, line.points))}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within low … high, about `TICKS` of them."""
    raw = (high - low) / TICKS
    unit = 10.0 ** floor(log10(raw))
    stride = next(unit * n for n in (1, 2, 5, 10) if unit * n >= raw)
    first = int(-(-low // stride))
    return [stride * i for i in range(first, int(high // stride) + 1)]


def _short(value: float, shown: Callable[[float], str]) -> str:
    text = shown(value)
    return text.rstrip("0").rstrip(".") if "." in text and "%" not in text and "e" not in text else text


def _table(lines: list[Line], shown: Callable[[float], str]) -> str:
    """The same as numbers, for those who do not see the curve."""
    rows = sorted((step, i, shown(value)) for i, line in enumerate(lines) for step, value in _some(line.points))
    body = "".join(
        f"<tr><th>{step:,}</th><td>{escape(lines[i].name)}</td><td>{text}</td></tr>" for step, i, text in rows
    )
    head = "<tr><th>step</th><th>what</th><th>value</th></tr>"
    return f'<details><summary>as a table</summary><div class="scroll"><table>{head}{body}</table></div></details>'


def _some(points: Sequence[Point]) -> list[Point]:
    stride = -(-len(points) // ROWS)
    return sorted({*points[::stride], points[-1]})
