from __future__ import annotations

import pytest

from neural.training import cpu_products


@pytest.fixture(autouse=True)
def _products_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's take up to two pieces of their own: nothing beside a training, but much beside these small ones."""
    monkeypatch.setattr(cpu_products, "family", lambda: 0)
