"""ONNX: the graph that we emit, run by onnxruntime on the CPU."""
