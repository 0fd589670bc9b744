"""`pytest tests/parity --parity-table docs/parity.md` writes what the tests found: a row a sample, a column a back end.

A test says what it shows with `@pytest.mark.parity("JAX", "float32", "values", "gradients")`. A sample that no test of a
back end shows stands as "missing".
"""

from __future__ import annotations

from pathlib import Path

import pytest

from neural.layers import REGISTRY

BACKENDS = ("PyTorch", "TensorFlow", "JAX", "ONNX")
CHECKS = (("float32", "values"), ("float32", "gradients"), ("bfloat16", "values"), ("bfloat16", "gradients"))
# onnxruntime computes no gradients, and has no bfloat16 kernels for CPUs
SHOWN = {"ONNX": CHECKS[:1]} | dict.fromkeys(BACKENDS[:3], CHECKS)
TITLE = """\
# Parity

Every layer, on every back end: the samples below are networks whose weights and inputs are drawn from a seed. Values are
held against the NumPy interpreter in float64 and gradients against PyTorch in float64: in float32 to 2e-5 and 1e-4 (of the
gradient's norm), in bfloat16 to 3e-2. Four marks a cell: float32 values and gradients, bfloat16 values and gradients.
onnxruntime computes no gradients, and has no bfloat16 kernels for CPUs. `make parity` runs the tests and writes this page.

"""

Row = tuple[str, int]
_found: dict[tuple[str, str, str, Row], bool] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", type=Path, help="write what the tests found to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "parity(backend, dtype, *checks): what a test of a layer's sample shows")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    marker = item.get_closest_marker("parity")
    if marker and report.when == "call":
        backend, dtype, *checks = marker.args
        row = (item.callspec.params["name"], item.callspec.params["index"])
        for check in checks:
            _found[backend, dtype, check, row] = report.passed
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--parity-table", None)
    if path:
        path.write_text(table(), encoding="utf-8")


def rows() -> list[Row]:
    return [(name, i) for name, cls in REGISTRY.items() if name == cls.__name__ for i in range(len(cls.samples))]


def table() -> str:
    """The page."""
    lines = ["| layer | sample | " + " | ".join(BACKENDS) + " |", "|---|---|" + "---|" * len(BACKENDS)]
    for name, i in rows():
        sample = REGISTRY[name].samples[i]
        cells = " | ".join(_cell(backend, (name, i)) for backend in BACKENDS)
        lines.append(f"| {name} | `{sample.input}` `{sample.layers}` | {cells} |")
    return TITLE + "\n".join(lines) + "\n"


def _cell(backend: str, row: Row) -> str:
    marks = []
    for dtype, check in SHOWN[backend]:
        passed = _found.get((backend, dtype, check, row))
        marks.append("missing" if passed is None else "✓" if passed else "**✗**")
    return " ".join(marks)
