"""onnxruntime: sessions whose keys and values stay in its own memory from step to step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnxruntime import OrtValue

from neural.backends.onnx import write
from neural.generation.onnx_executor import GIVEN


class OnnxruntimeSession:
    """See neural.generation.onnx_executor.Session."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        shapes = {i.name: i.shape for i in session.get_inputs()}
        self._takes = [name for name in GIVEN if name in shapes]
        self._names = [name for name in shapes if name.startswith("past_key_values.")]
        self._outputs = [output.name for output in session.get_outputs()]
        self.past = [np.zeros((0, shapes[name][1], 0, shapes[name][3]), np.float32) for name in self._names]

    @property
    def past(self) -> list[np.ndarray]:
        return [value.numpy() for value in self._past]

    @past.setter
    def past(self, arrays: list[np.ndarray]) -> None:
        self._past = [OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in arrays]

    def run(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, kept: int) -> np.ndarray:
        if not self._past[0].shape()[0]:
            self.past = [np.zeros((len(ids), *array.shape[1:]), np.float32) for array in self.past]
        given = dict(zip(GIVEN, (ids, mask, positions, np.array([kept])), strict=True))
        feeds = {name: OrtValue.ortvalue_from_numpy(given[name]) for name in self._takes}
        logits, *self._past = self._session.run_with_ort_values(
            self._outputs, feeds | dict(zip(self._names, self._past, strict=True))
        )
        return logits.numpy()


def sessions(model: ir.Model) -> Callable[[], OnnxruntimeSession]:
    """What opens sessions of one model, which share its weights."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="neural-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        write(model, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: OnnxruntimeSession(session)
