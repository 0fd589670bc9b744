"""Random programs: generated PyTorch against the NumPy oracle in float64, so that nothing is amplified but a fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neural.backends.module import load_module
from tests.properties.random_programs import COUNT, Case


@pytest.fixture(autouse=True)
def double_precision():
    """Rotary angles, too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("seed", range(COUNT))
def test_pytorch_equals_the_oracle(seed: int) -> None:
    case = Case(seed)
    model = load_module(case.program.source(), "random").N().double().eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in case.weights.items()}, strict=False)
    with torch.no_grad():
        ours = model(torch.from_numpy(case.x)).numpy()
    scale = max(1, np.abs(case.expected).max())
    np.testing.assert_allclose(ours, case.expected, rtol=1e-8, atol=1e-8 * scale, err_msg=case.text)
