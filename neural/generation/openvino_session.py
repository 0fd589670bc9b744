"""OpenVINO: sessions whose keys and values are state of the compiled model, which it lengthens in place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import openvino
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation

from neural.backends.onnx import write
from neural.backends.onnx.quantization import from_blocks
from neural.generation.onnx_executor import GIVEN

# float32 as everywhere else: by itself it would keep keys and values in 8 bits
PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class OpenvinoSession:
    """See neural.generation.onnx_executor.Session."""

    def __init__(self, compiled: openvino.CompiledModel, names: list[str], shapes: list[tuple[int, int]]) -> None:
        self._request = compiled.create_infer_request()
        states = {state.name: state for state in self._request.query_state()}
        self._states = [states[name] for name in names]
        self._takes = {name for i in compiled.inputs for name in i.names}
        self._logits = compiled.output(0)
        self.past = [np.zeros((0, heads, 0, width), np.float32) for heads, width in shapes]

    @property
    def past(self) -> list[np.ndarray]:
        if not self._rows:
            return self._empty
        return [state.state.data.copy() for state in self._states]

    @past.setter
    def past(self, arrays: list[np.ndarray]) -> None:
        self._rows = len(arrays[0])
        if not self._rows:
            self._empty = arrays
            self._request.reset_state()
            return
        for state, array in zip(self._states, arrays, strict=True):
            state.state = openvino.Tensor(np.ascontiguousarray(array))

    def run(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, kept: int) -> np.ndarray:
        self._rows = len(ids)
        given = dict(zip(GIVEN, (ids, mask, positions, np.array([kept])), strict=True))
        given["beam_idx"] = np.arange(len(ids), dtype=np.int32)
        self._request.infer({name: array for name, array in given.items() if name in self._takes})
        return self._request.get_tensor(self._logits).data


def sessions(model: ir.Model) -> Callable[[], OpenvinoSession]:
    """What opens sessions of one model, which share its weights."""
    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="neural-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        write(_with_plain_tables(model), path)
        network = core.read_model(path)
        names, shapes = _make_stateful(network)
        compiled = core.compile_model(network, "CPU", {**PRECISION, "PERFORMANCE_HINT": "LATENCY"})
    return lambda: OpenvinoSession(compiled, names, shapes)


def _with_plain_tables(model: ir.Model) -> ir.Model:
    """The model with tables of float32 where they are quantised, which OpenVINO reads only of some forms. No step
    reads more than a few rows of them.
    """
    for node in model.graph:
        if node.op_type == "GatherBlockQuantized":
            reshaped, ids, scales = node.inputs
            values = reshaped.producer().inputs[0]
            parts = (value.const_value.numpy() for value in (values, scales))
            numbers = ir.tensor(from_blocks(*parts, node.attributes["bits"].value), name=f"{values.name}_table")
            table = ir.Value(name=numbers.name, const_value=numbers)
            model.graph.initializers[table.name] = table
            gather = ir.Node("", "Gather", [table, ids], num_outputs=1, name=f"{node.name}_plain")
            model.graph.insert_before(node, gather)
            node.outputs[0].replace_all_uses_with(gather.outputs[0])
            model.graph.remove(node)
    return model


def _make_stateful(network: openvino.Model) -> tuple[list[str], list[tuple[int, int]]]:
    """Turn inputs `past_key_values.…` and outputs `present.…` into states; their names and (heads, head_dim)."""
    inputs = [i for i in network.inputs if i.any_name.startswith("past_key_values.")]
    shapes = [tuple(i.partial_shape[axis].get_length() for axis in (1, 3)) for i in inputs]
    rows = ops.parameter([-1], np.int32, name="beam_idx")  # with a Gather by it, its kernels keep the state in place
    rows.output(0).get_tensor().set_names({"beam_idx"})
    network.add_parameters([rows])
    for value in inputs:
        readers = value.get_target_inputs()
        gathered = ops.gather(value.node, rows, ops.constant(0))
        for reader in readers:
            reader.replace_source_output(gathered.output(0))
    network.validate_nodes_and_infer_types()
    pairs = {i.any_name: i.any_name.replace("past_key_values", "present") for i in inputs}
    apply_make_stateful_transformation(network, pairs)
    count = ops.gather(ops.shape_of(network.input("input_ids"), output_type="i64"), ops.constant([0]), ops.constant(0))
    for node in network.get_ops():
        if node.get_type_name() == "ReadValue":  # what a state is before it is set: of no slot
            _, heads, _, width = node.get_output_partial_shape(0)
            sizes = [ops.constant(np.array([size.min_length], np.int64)) for size in (heads, width)]
            shape = ops.concat([count, sizes[0], ops.constant(np.array([0], np.int64)), sizes[1]], axis=0)
            node.set_arguments([ops.broadcast(ops.constant(np.float32(0)), shape)])
    network.validate_nodes_and_infer_types()
    return [f"{past}{present}" for past, present in pairs.items()], shapes
