"""Weights by our names and in PyTorch's layouts, in and out of a Flax NNX model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from neural.diagnostics.diagnostic import fail

# By the class of a layer: our name for a variable, and its attribute.
VARIABLES: dict[type[nnx.Module], dict[str, str]] = {
    nnx.Linear: {"weight": "kernel", "bias": "bias"},
    nnx.Embed: {"weight": "embedding"},
    nnx.LayerNorm: {"weight": "scale", "bias": "bias"},
    nnx.RMSNorm: {"weight": "scale"},
    nnx.BatchNorm: {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    nnx.Dict: {"bias": "bias"},  # of a product with another layer's weight
}


class Place(NamedTuple):
    """A variable of a model. A kernel of NNX is (in, out), and ours (out, in)."""

    variable: nnx.Variable
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """In our layout."""
        return self.variable.shape[::-1] if self.transposed else self.variable.shape


def places(model: nnx.Module) -> dict[str, Place]:
    """Where every weight is. One that layers share is there under the name of each of them."""
    found = {}
    for path, module in _layers(model, ""):
        for name, attribute in VARIABLES.get(type(module), {}).items():
            variable = getattr(module, attribute, None)
            if isinstance(variable, nnx.Variable):
                found[f"{path}.{name}".removeprefix(".")] = Place(variable, attribute == "kernel")
    return found


def _layers(module: nnx.Module, path: str) -> Iterator[tuple[str, nnx.Module]]:
    yield path, module
    children = enumerate(module) if isinstance(module, nnx.List) else vars(module).items()
    for name, child in children:
        if isinstance(child, nnx.Module):
            yield from _layers(child, f"{path}.{name}".removeprefix("."))


def load(model: nnx.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Put weights into a model, each in the precision that the model has; shared ones are given once.

    NeuralError N945, with the model as it was, if they do not fit.
    """
    known = places(model)
    given = {id(place.variable) for name, place in known.items() if name in weights}
    wanted = [name for name, place in known.items() if name in weights or id(place.variable) not in given]
    for name in dict.fromkeys([*wanted, *weights]):
        ours, theirs = (tuple(side[name].shape) if name in side else None for side in (known, weights))
        if ours != theirs:
            sides = [f"has {shape}" if shape else "lacks it" for shape in (ours, theirs)]
            title = f"`{name}` does not fit: the JAX model {sides[0]}, and what was given {sides[1]}"
            fail("N945", title, hint="give the weights of this network, at these sizes")
    for name, array in weights.items():
        variable, transposed = known[name]
        variable[...] = jnp.asarray(array.T if transposed else array, variable.dtype)


def read(model: nnx.Module, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Weights of a model by these names."""
    known, found = places(model), {}
    for name in names:
        array = np.asarray(known[name].variable[...])
        found[name] = array.T if known[name].transposed else array
    return found
