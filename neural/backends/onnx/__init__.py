"""Graphs to ONNX, with weights: built node by node, not traced."""

from neural.backends.onnx.file import write
from neural.backends.onnx.initial import fresh_weights
from neural.backends.onnx.network import emit

__all__ = ["emit", "fresh_weights", "write"]
