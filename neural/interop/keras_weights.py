"""Weights by our names and in PyTorch's layouts, in and out of a model of the generated Keras source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from neural.backends.keras_names import attribute
from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

# By the class of a layer: our names for its variables, in the order in which it makes and saves them.
VARIABLES = {
    "Dense": {"weight": "kernel", "bias": "bias"},
    "Embedding": {"weight": "embeddings"},
    "ReversibleEmbedding": {"weight": "embeddings"},
    "LayerNormalization": {"weight": "gamma", "bias": "beta"},
    "RMSNormalization": {"weight": "scale"},
    "BatchNormalization": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}


class Place(NamedTuple):
    """A variable of a model. A kernel of Keras is (in, out), and ours (out, in)."""

    variable: Any
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """In our layout."""
        return tuple(self.variable.shape[::-1] if self.transposed else self.variable.shape)


def place(model: Any, name: str) -> Place | None:
    """The variable of a keras.Model that has one of our names, "blocks.0.attn.qkv.weight"; None where it has none."""
    *path, leaf = name.split(".")
    owner, parts = model, [attribute(part) for part in path]
    while parts:
        head, *parts = parts
        if isinstance(owner, list):
            owner = owner[int(head)] if head.isdigit() and int(head) < len(owner) else None
        elif hasattr(owner, head):
            owner = getattr(owner, head)
        elif parts:  # a part of a layer: self.attention_q_norm
            parts[0] = f"{head}_{parts[0]}"
        else:  # the bias of a layer whose matrix is another's: self.head_bias
            variable = getattr(owner, f"{head}_{leaf}", None)
            return None if variable is None else Place(variable, False)
    own = VARIABLES.get(type(owner).__name__, {}).get(leaf)
    variable = getattr(owner, own, None) if own else None
    return None if variable is None else Place(variable, own == "kernel")


def load(model: Any, weights: Mapping[str, Array]) -> None:
    """Put weights into a keras.Model, each in the precision that the model has. NeuralError N940 if they do not fit."""
    places = {name: place(model, name) for name in weights}
    filled = {id(p.variable) for p in places.values() if p is not None}
    missing = [v.path for v in model.weights if id(v) not in filled and "seed_generator" not in v.path]
    for name, array in weights.items():
        ours = places[name] and places[name].shape
        if ours != array.shape:
            _misfit(name, f"has {ours}" if ours else "lacks it", f"has {tuple(array.shape)}")
    if missing:
        _misfit(missing[0], "has it", "lacks it")
    for name, (variable, transposed) in places.items():
        variable.assign(weights[name].T if transposed else weights[name])


def _misfit(name: str, ours: str, theirs: str) -> None:
    title = f"`{name}` does not fit: the Keras model {ours}, and what was given {theirs}"
    fail("N940", title, hint="give the weights of this network, at these sizes")


def read(model: Any, names: Iterable[str]) -> dict[str, Array]:
    """The weights of a keras.Model that have these names of ours."""
    from keras import ops

    found = {}
    for name in names:
        variable, transposed = place(model, name)
        array = ops.convert_to_numpy(variable.value)
        found[name] = array.T if transposed else array
    return found
