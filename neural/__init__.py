"""Neural DSL: one text file describes a network, its training and its use.

    import neural
    program = neural.load("gpt2.neural", {"n_layer": 4})
    print(program.parameter_count, program.source("pytorch"))

What the commands do: `load` (check, compile), `plan`, `set_up` and `Run.create` with `train`, `Run.open` with
`generate`, `page` (explain). Importing this package imports no framework; each name brings what it needs when it is
first used.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "NeuralError": "neural.diagnostics.diagnostic",
    "Program": "neural.compiler",
    "Run": "neural.training.run",
    "SamplingOptions": "neural.generation.options",
    "generate": "neural.generation.generate",
    "load": "neural.compiler",
    "page": "neural.diagnostics.pages",
    "plan": "neural.planning.plan",
    "set_up": "neural.training.setup",
    "train": "neural.training.loop",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'neural' has no attribute {name!r}")
