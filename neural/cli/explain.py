"""`neural explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from neural.cli.options import Json


def explain(
    code: Annotated[str | None, typer.Argument(help="A code such as N402; all codes are listed without one.")] = None,
    json: Json = False,
) -> None:
    """Say what a code means, why the compiler refuses it and what to do.

    \b
    Examples:
      neural explain N402
      neural explain               # all codes with their titles
    """
    import json as format_json

    from neural.diagnostics.pages import codes, page, title

    if code is None:
        titles = {c: title(c) for c in codes()}
        rows = [{"code": c, "title": t} for c, t in titles.items()]
        print(
            format_json.dumps({"codes": rows}, ensure_ascii=False)
            if json
            else "\n".join(f"{c}  {t}" for c, t in titles.items())
        )
        return
    known = _known(code)
    text = page(known) or ""
    print(
        format_json.dumps({"code": known, "title": title(known), "text": text}, ensure_ascii=False)
        if json
        else text.rstrip()
    )


def _known(code: str) -> str:
    """The code as it is filed: `n402` and `402` mean N402."""
    from neural.diagnostics.diagnostic import Diagnostic, NeuralError
    from neural.diagnostics.near import nearest
    from neural.diagnostics.pages import codes

    wanted = code.upper() if code[:1] in ("n", "N") else f"N{code}"
    if wanted in codes():
        return wanted
    near = nearest(wanted, codes())
    hint = f"did you mean {near}? " if near else ""
    title = f"there is no code `{code}`"
    raise NeuralError(Diagnostic("N013", title, hint=hint + "`neural explain` lists all codes"))
