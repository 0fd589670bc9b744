"""ONNX models in onnxruntime: one call, or step by step with the cache, driven as Hugging Face's exports are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime

from neural.graph.graph import Network


def session(model: ir.Model | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = model if isinstance(model, str) else ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(
    model: ir.Model, network: Network, inputs: list[np.ndarray], attention_mask: np.ndarray | None = None
) -> np.ndarray:
    """The first output; past keys and values of length 0."""
    opened = session(model)
    if network.cached:
        return Driver(opened, len(inputs[0])).read(inputs[0], attention_mask)
    given = dict(zip((v.name for v in network.block.inputs), inputs, strict=True))
    if "attention_mask" in {i.name for i in opened.get_inputs()}:
        shape = given[network.sequence].shape[:2]
        given["attention_mask"] = np.ones(shape, np.int64) if attention_mask is None else attention_mask
    return opened.run(None, given)[0]


def empty_past(opened: onnxruntime.InferenceSession, rows: int) -> dict[str, np.ndarray]:
    shapes = {i.name: i.shape for i in opened.get_inputs() if i.name.startswith("past_key_values.")}
    return {name: np.zeros((rows, heads, 0, width), np.float32) for name, (_, heads, _, width) in shapes.items()}


class Driver:
    """A causal model with its cache."""

    def __init__(self, opened: onnxruntime.InferenceSession, rows: int) -> None:
        self.opened = opened
        self.past = empty_past(opened, rows)
        self.names = {i.name for i in opened.get_inputs()}
        self.mask = np.zeros((rows, 0), np.int64)

    def read(self, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The logits of new ids (B, T). mask: (B, T) of these, ones by default."""
        self.mask = np.concatenate((self.mask, np.ones_like(ids) if mask is None else mask), axis=1)
        positions = np.maximum(self.mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": self.mask, "position_ids": positions}
        given = {name: array for name, array in given.items() if name in self.names}
        logits, *present = self.opened.run(None, given | self.past)
        self.past = dict(zip(self.past, present, strict=True))
        return logits

    def decode(self, ids: np.ndarray, n: int, mask: np.ndarray | None = None) -> np.ndarray:
        """The n most likely next ids, (B, n)."""
        found, new = [], self.read(ids, mask)[:, -1:].argmax(-1)
        for _ in range(n - 1):
            found.append(new)
            new = self.read(new)[:, -1:].argmax(-1)
        return np.concatenate((*found, new), axis=1)
