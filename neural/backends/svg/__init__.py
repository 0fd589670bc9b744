"""A network as a picture: one SVG that needs nothing outside itself."""

from __future__ import annotations

from neural.backends.svg.sheet import emit

__all__ = ["emit"]
