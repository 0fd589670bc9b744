"""ONNX: the graph that we emit, run by onnxruntime on the CPU as Hugging Face's exports are."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from neural.backends.onnx import emit, write
from neural.compiler import Program
from neural.graph.passes import optimize


class OnnxModel:
    """A model in a session. Runtimes of ONNX have no gradients."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def logits(self, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
        declared = {i.name: i.shape for i in self._session.get_inputs()}
        if any(name.startswith("past_key_values.") for name in declared):
            return Driver(self._session, len(inputs[0])).read(inputs[0], attention_mask)
        masked = declared.pop("attention_mask", None)
        given = dict(zip(declared, inputs, strict=True))
        if masked:
            sizes = next(given[name].shape[:2] for name, shape in declared.items() if shape[:2] == masked)
            given["attention_mask"] = np.ones(sizes, np.int64) if attention_mask is None else attention_mask
        return self._session.run(None, given)[0]

    def cached(self, ids: np.ndarray) -> np.ndarray:
        driver = Driver(self._session, len(ids))
        return np.concatenate([driver.read(piece) for piece in np.split(ids, ids.shape[1], axis=1)], axis=1)

    def decode(self, ids: np.ndarray, n: int) -> np.ndarray:
        return Driver(self._session, len(ids)).decode(ids, n)


class Peer(OnnxModel):
    """See neural.verification.peer."""

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write(emit(optimize(program.graph), weights), path)
            super().__init__(open_session(path))


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def open_exactly(path: Path) -> onnxruntime.InferenceSession:
    """A session that multiplies by quantised matrices in float32: the file lets the runtime round what they read to 8
    bits, for speed, and then no comparison could tell another model from that.
    """
    model = ir.load(path)
    products = [node for node in model.graph if node.op_type == "MatMulNBits"]
    if not products:
        return open_session(path)
    for node in products:
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder) / path.name)
        return open_session(Path(folder) / path.name)


def empty_past(session: onnxruntime.InferenceSession, rows: int) -> dict[str, np.ndarray]:
    """Keys and values of no token, as the first call takes them."""
    shapes = {i.name: i.shape for i in session.get_inputs() if i.name.startswith("past_key_values.")}
    return {name: np.zeros((rows, heads, 0, width), np.float32) for name, (_, heads, _, width) in shapes.items()}


class Driver:
    """A causal model with its cache."""

    def __init__(self, session: onnxruntime.InferenceSession, rows: int) -> None:
        self._session = session
        self._past = empty_past(session, rows)
        self._mask = np.zeros((rows, 0), np.int64)
        self._names = {i.name for i in session.get_inputs()}

    def read(self, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The logits (B, T, V) of new ids (B, T). mask: (B, T) of these, ones by default."""
        self._mask = np.concatenate((self._mask, np.ones_like(ids) if mask is None else mask), axis=1)
        positions = np.maximum(self._mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": self._mask, "position_ids": positions}
        given = {name: array for name, array in given.items() if name in self._names}
        logits, *present = self._session.run(None, given | self._past)
        self._past = dict(zip(self._past, present, strict=True))
        return logits

    def decode(self, ids: np.ndarray, n: int) -> np.ndarray:
        """The n most likely next ids, (B, n)."""
        found, new = [], ids
        for _ in range(n):
            new = self.read(new)[:, -1:].argmax(-1)
            found.append(new)
        return np.concatenate(found, axis=1)
