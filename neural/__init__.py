"""Neural DSL: one text file describes a network, its training and its use.

    import neural
    program = neural.load("gpt2.neural", {"n_layer": 4})
    print(program.parameter_count, program.source("pytorch"))

Every command has its function: `load` and `Program` (check, compile), `plan`, `train`, `generate`, `format_text`, `explain`.
Importing this package imports no framework.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {"load": "neural.compiler", "Program": "neural.compiler", "NeuralError": "neural.diagnostics.diagnostic"}
__all__ = ["NeuralError", "Program", "load"]  # noqa: F822


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'neural' has no attribute {name!r}")
