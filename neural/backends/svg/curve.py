"""A curve as SVG: numbers by step, with axes and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from neural.backends.svg.palette import FAINT, INK, PAPER, PILL_LINE

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 48, 52
LINE = "#c2410c"
TICKS = 4


def curve(title: str, points: Sequence[tuple[int, float]], *, x: str, y: str) -> str:
    """An SVG document of a line through `points`, which are in the order of their steps. The y axis begins at 0."""
    last, top = max(points[-1][0], 1), max(value for _, value in points) or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        across = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        return round(across, 2), round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 2)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="28" font-size="15" font-weight="600">{escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y)}</text>",
    ]
    for i in range(TICKS + 1):
        step, value = last * i // TICKS, top * i / TICKS
        (across, _), (_, down) = place(step, 0), place(0, value)
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}" stroke="{PILL_LINE}"/>',
            f'<text x="{LEFT - 8}" y="{down + 4}" text-anchor="end" fill="{FAINT}">{value:.3g}</text>',
            f'<text x="{across}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="{FAINT}">{step:,}</text>',
        ]
    path = " ".join("{},{}".format(*place(step, value)) for step, value in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2" stroke-linejoin="round"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
