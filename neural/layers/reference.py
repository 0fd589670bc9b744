"""The reference of the layers, from what they declare."""

from __future__ import annotations

from dataclasses import MISSING
from inspect import cleandoc

from neural.layers import REGISTRY
from neural.layers.arguments import parameters
from neural.layers.rotary import Rope


def names() -> tuple[str, ...]:
    """Of all layers, with their synonyms."""
    return (*REGISTRY, "Rope")


def describe(name: str) -> str:
    """A layer's page in Markdown."""
    cls = Rope if name == "Rope" else REGISTRY[name]
    lines = [f"## {cls.__name__}", "", cleandoc(cls.__doc__ or "")]
    synonyms = [n for n, c in REGISTRY.items() if c is cls and n != cls.__name__]
    if synonyms:
        lines += ["", f"Also called {', '.join(f'`{s}`' for s in synonyms)}."]
    rows = parameters(cls)
    if rows:
        lines += ["", "| argument | takes | default | |", "|---|---|---|---|"]
        lines += [f"| `{p.name}` | {p.kind.expected} | {_default(p)} | {p.doc} |" for p in rows]
    return "\n".join(lines) + "\n"


def _default(parameter) -> str:
    if parameter.default is MISSING:
        return "must be given"
    value = parameter.default.value
    return (
        {None: "none", True: "true", False: "false"}.get(value, f"`{value}`")
        if not isinstance(value, float)
        else f"`{value}`"
    )


def reference() -> str:
    """docs/layers.md: every layer."""
    head = (
        "# Layers\n\nArguments bind by name, or by position in the order of the tables. "
        '`tied_to=name` and `weights="file"` go with any layer that has weights.\n'
    )
    own = sorted({cls.__name__ for cls in REGISTRY.values()} | {"Rope"})
    return head + "\n" + "\n".join(describe(n) for n in own)
