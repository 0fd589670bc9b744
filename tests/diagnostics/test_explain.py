"""`neural explain`."""

from __future__ import annotations

import json

import pytest

from neural.cli.explain import explain
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.pages import codes, page, title


@pytest.mark.parametrize("written", ["N102", "n102", "102"])
def test_a_page_is_printed(written: str, capsys) -> None:
    explain(written)
    assert capsys.readouterr().out == (page("N102") or "").rstrip() + "\n"


def test_all_codes_are_listed(capsys) -> None:
    explain()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{code}  {title(code)}" for code in codes()]


def test_json(capsys) -> None:
    explain("N102", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"code": "N102", "title": title("N102"), "text": page("N102")}
    explain(as_json=True)
    assert json.loads(capsys.readouterr().out)["codes"][0] == {"code": codes()[0], "title": title(codes()[0])}


@pytest.mark.parametrize(("written", "near"), [("N1022", "N102"), ("", None), ("everything", None), ("../N102", None)])
def test_an_unknown_code(written: str, near: str | None) -> None:
    with pytest.raises(NeuralError) as error:
        explain(written)
    (message,) = error.value.diagnostics
    assert message.code == "N013"
    assert (f"did you mean {near}?" in (message.hint or "")) == (near is not None)


def test_a_layer_is_explained_from_what_it_declares(capsys) -> None:
    explain("Attention")
    text = capsys.readouterr().out
    assert "Scaled dot-product attention" in text
    assert "| `num_kv_heads` | a whole number from 1, or none | none |" in text
