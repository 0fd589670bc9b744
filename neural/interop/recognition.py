"""A network as the decoder that other formats know, and its weights from and to their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from neural.diagnostics.diagnostic import fail
from neural.graph.graph import Network
from neural.graph.passes import optimize
from neural.interop.decoder import Decoder, Recognized, tensor_shapes
from neural.interop.structure import Structure

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray


def recognize(network: Network) -> Recognized:
    """The decoder that a network is. NeuralError N860 names the first node that has no equal in other formats."""
    return Structure(optimize(network)).recognized()


def to_network(recognized: Recognized, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Pivot tensors under our names.

    NeuralError N861 for a tensor that is missing or has another shape, and for a bias that the network has no place for
    unless it is all zeros, which change nothing.
    """
    import numpy as np

    tensors = dict(tensors)  # read once: each look at a file's unpacks it
    require_tensors(recognized.decoder, tensors, optional=_without_place(recognized))
    for name in sorted(_without_place(recognized) & tensors.keys()):
        if np.any(tensors[name]):
            fail(
                "N861",
                f"the network has no place for `{name}`, which is not zero",
                hint="leave out `use_bias=false` where the weights have a bias",
            )
    return {
        ours: tensors[theirs] if isinstance(theirs, str) else np.concatenate([tensors[t] for t in theirs])
        for ours, theirs in recognized.weights.items()
    }


def to_layer(network: Network, names: Collection[str], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Pivot tensors under our names of one layer's weights, in a network that need be a decoder only as far as there.

    NeuralError N860 where something without an equal in other formats stands before the layer, or is in it.
    """
    import numpy as np

    structure = Structure(optimize(network))
    known = structure.readable()
    if not known.keys() >= set(names):
        recognize(network)  # tells what has no equal
    parts = {ours: (known[ours],) if isinstance(known[ours], str) else known[ours] for ours in names}
    return {
        ours: np.concatenate([tensors[t] for t in theirs])
        for ours, theirs in parts.items()
        if all(t in tensors for t in theirs)
    }


def from_network(recognized: Recognized, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Our weights under pivot names. A bias that the decoder has and the network does not is zeros."""
    import numpy as np

    shapes = tensor_shapes(recognized.decoder)
    found: dict[str, Array] = {}
    for ours, theirs in recognized.weights.items():
        if ours not in weights:
            fail("N861", f"the weights lack `{ours}`", notes=(f"they are {len(weights)} tensors",))
        parts = (theirs,) if isinstance(theirs, str) else theirs
        rows = [shapes[p][0] for p in parts]
        expected = (sum(rows), *shapes[parts[0]][1:])
        if weights[ours].shape != expected:
            fail("N861", f"`{ours}` has the shape {weights[ours].shape}, and the network says {expected}")
        ends = [sum(rows[: i + 1]) for i in range(len(rows) - 1)]
        found.update(zip(parts, np.split(weights[ours], ends) if ends else (weights[ours],), strict=True))
    for name in _without_place(recognized):
        found[name] = np.zeros(shapes[name], np.float32)
    return {name: found[name] for name in shapes}


def require_tensors(decoder: Decoder, tensors: Mapping[str, Array], optional: frozenset[str] = frozenset()) -> None:
    """NeuralError N861 for the first pivot tensor that is missing, too much or of another shape."""
    shapes = tensor_shapes(decoder)
    for name, shape in shapes.items():
        if name not in tensors:
            if name in optional:
                continue
            fail("N861", f"`{name}` is missing: the model needs it with the shape {shape}")
        if tuple(tensors[name].shape) != shape:
            fail("N861", f"`{name}` has the shape {tuple(tensors[name].shape)}, and the model needs {shape}")
    for name in tensors:
        if name not in shapes:
            fail("N861", f"`{name}` of the shape {tuple(tensors[name].shape)} has no place in the model")


def _without_place(recognized: Recognized) -> frozenset[str]:
    """Pivot names that the decoder has and the network does not: biases, which are then zeros."""
    placed = {n for v in recognized.weights.values() for n in ((v,) if isinstance(v, str) else v)}
    return frozenset(tensor_shapes(recognized.decoder).keys() - placed)
