"""ONNX models in onnxruntime, on one thread."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime

from neural.verification.onnx_peer import Driver, OnnxModel


def session(model: ir.Model | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = model if isinstance(model, str) else ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None) -> np.ndarray:
    """The first output; past keys and values of length 0."""
    return OnnxModel(session(model)).logits(inputs, attention_mask)


def decode(driver: Driver, ids: np.ndarray, n: int, mask: np.ndarray) -> np.ndarray:
    """The n most likely next ids (B, n) of a prompt with padding, which the mask (B, T) says."""
    first = driver.read(ids, mask)[:, -1:].argmax(-1)
    return np.concatenate((first, driver.decode(first, n - 1)), axis=1)
