"""`neural explain`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from neural.cli.options import Json


def explain(
    subject: Annotated[
        str | None, typer.Argument(help="A code such as N402, or a layer such as Attention. Without one: all codes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a message means and what to do, or what a layer is and takes.

    \b
    Examples:
      neural explain N402
      neural explain Attention
      neural explain               # all codes with their titles
    """
    from neural.diagnostics.pages import codes, title

    if subject is None:
        titles = {c: title(c) for c in codes()}
        rows = [{"code": c, "title": t} for c, t in titles.items()]
        lines = "\n".join(f"{c}  {t}" for c, t in titles.items())
        print(json.dumps({"codes": rows}, ensure_ascii=False) if as_json else lines)
        return
    found = _found(subject)
    print(json.dumps(found, ensure_ascii=False) if as_json else found["text"].rstrip())


def _found(subject: str) -> dict[str, str | None]:
    """The page of a code (`n402` and `402` mean N402), or the reference of a layer."""
    from neural.diagnostics.diagnostic import Diagnostic, NeuralError
    from neural.diagnostics.near import nearest
    from neural.diagnostics.pages import codes, page, title
    from neural.layers.reference import describe, names

    code = subject.upper() if subject[:1] in ("n", "N") else f"N{subject}"
    if code in codes():
        return {"code": code, "title": title(code), "text": page(code)}
    if subject in names():
        return {"layer": subject, "text": describe(subject)}
    near = nearest(subject, names()) or nearest(code, codes())
    hint = f"did you mean {near}? " if near else ""
    what = f"there is no code and no layer `{subject}`"
    raise NeuralError(Diagnostic("N013", what, hint=hint + "`neural explain` lists all codes"))
