"""How wide text is, without a font: the advance widths of Helvetica, which its look-alikes share."""

from __future__ import annotations

# Thousandths of the font's size (Adobe's metrics of Helvetica), by the characters that have them.
_WIDTHS = {
    **dict.fromkeys("ijl'|", 222),
    **dict.fromkeys(" fItrJ.,:;!/()[]·-", 300),
    **dict.fromkeys('ckszxvy"*', 500),
    **dict.fromkeys("abdeghnopqu0123456789L_?$#+=<>~^×", 570),
    **dict.fromkeys("ABEFKPSTVXYZ&", 667),
    **dict.fromkeys("CDHNRUw", 722),
    **dict.fromkeys("GOQ", 778),
    **dict.fromkeys("mMW%@", 944),
}
_OTHER = 650
_SLACK = 1.06  # for fonts that stand in
_MONO = 0.605


def text_width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """Width of a line of text, in the unit of the font's size."""
    if mono:
        return len(text) * _MONO * size
    thousandths = sum(_WIDTHS.get(c, _OTHER) for c in text)
    return thousandths / 1000 * size * _SLACK * (1.07 if bold else 1.0)


def fitted(text: str, limit: float, size: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, its end cut for an ellipsis where it is wider than the limit."""
    if text_width(text, size, bold=bold, mono=mono) <= limit:
        return text
    kept = text
    while kept and text_width(kept + "…", size, bold=bold, mono=mono) > limit:
        kept = kept[:-1]
    return kept.rstrip() + "…"
