"""Random programs in TensorFlow against the NumPy oracle. A file a back end: files are what test processes share out."""

from __future__ import annotations

import pytest

from tests.properties.random_programs import COUNT, holds_on


@pytest.mark.parametrize("seed", range(COUNT))
def test_random_programs(seed: int) -> None:
    holds_on("tensorflow", seed)
