"""Memory that runs out is told as that, by whichever library."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import neural.cli
import neural.cli.app


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB.")


@pytest.mark.parametrize(
    ("work", "asked"),
    [
        (lambda: bytearray(2**60), ""),
        (lambda: torch.empty(2**60), ": 4 EiB more were asked for"),
        (on_a_gpu, ": 2.00 GiB more were asked for"),
    ],
    ids=["python", "torch", "cuda"],
)
def test_it_is_not_a_fault(work: Callable[[], object], asked: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(neural.cli.app, "app", lambda standalone_mode: work())
    with pytest.raises(SystemExit) as ended:
        neural.cli.main()
    assert ended.value.code == 2
    assert f"error[N016]: memory ran out{asked}\n" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_it(monkeypatch, capsys) -> None:
    monkeypatch.setattr(neural.cli.app, "app", lambda standalone_mode: torch.ones(2) @ torch.ones(3))
    with pytest.raises(SystemExit) as ended:
        neural.cli.main()
    assert ended.value.code == 1 and "a fault of neural" in capsys.readouterr().err
