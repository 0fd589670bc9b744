"""A network as the decoder that other formats know, and its weights from and to their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from neural.diagnostics.diagnostic import fail
from neural.graph.graph import Network
from neural.graph.passes import optimize
from neural.interop.decoder import BLOCK, Decoder, Recognized, Steps, tensor_shapes
from neural.interop.structure import Structure

if TYPE_CHECKING:
    import numpy

    from neural.quantization.matrix import QuantizedMatrix

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
        expected = (sum(shapes[p][0] for p in parts), *shapes[parts[0]][1:])
        if weights[ours].shape != expected:
            fail("N861", f"`{ours}` has the shape {weights[ours].shape}, and the network says {expected}")
        found.update(_split(weights[ours], parts, shapes))
    for name in _without_place(recognized):
        found[name] = np.zeros(shapes[name], np.float32)
    return {name: found[name] for name in shapes}


def steps_from_network(recognized: Recognized, quantized: Mapping[str, QuantizedMatrix]) -> dict[str, Steps]:
    """Of quantised matrices, by our names, the steps under pivot names, where they have such."""
    import numpy as np

    shapes, found = tensor_shapes(recognized.decoder), {}
    for ours, matrix in quantized.items():
        rows, columns = matrix.shape
        with np.errstate(over="ignore"):
            scales = matrix.scales.astype(np.float16)
        if matrix.zeros is not None or columns % BLOCK or not np.array_equal(scales, matrix.scales):
            continue
        scales = np.repeat(scales.reshape(rows, -1), matrix.group // BLOCK, axis=1)
        theirs = recognized.weights[ours]
        parts = _split(scales, (theirs,) if isinstance(theirs, str) else theirs, shapes)
        found.update((name, Steps(matrix.bits, part)) for name, part in parts.items())
    return found


def _split(array: Array, parts: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Its rows by the pivot tensors that they belong to."""
    import numpy as np

    ends = np.cumsum([shapes[part][0] for part in parts])[:-1]
    return dict(zip(parts, np.split(array, ends) if len(ends) else (array,), strict=True))


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
