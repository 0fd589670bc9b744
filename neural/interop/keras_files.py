"""Keras' files of weights: .weights.h5 and .keras of Keras 3, and .h5 of Keras 2 and 3.

They are read as tables of numbers: no layer is made from what a file says of itself, and no code in it is run.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import h5py
import numpy as np

from neural.backends.keras_names import attribute
from neural.diagnostics.diagnostic import fail
from neural.layers.layer import Weight

WEIGHTS = "model.weights.h5"  # in a .keras file
LEAVES = {  # our names of what Keras calls its variables
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "scale": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
ORDER = ("weight", "bias", "running_mean", "running_var")  # in which a layer saves them
MOST = 1_000_000  # groups and variables in a file

Layers = dict[str, dict[str, h5py.Dataset]]  # by the names of layers with dots; by "0", "1", … or our leaf


def read_keras(path: Path, expected: Mapping[str, Weight]) -> dict[str, np.ndarray]:
    """The expected weights, under our names and in PyTorch's layout, float32.

    A file of our own Keras source holds them by name. In another model's the layers have other names: one layer then
    is found where its weights alone have the shapes.

    NeuralError: N822 (a weight is missing or has another shape), N824 (its numbers are not floats), N828 (no file of
    Keras, or a damaged one), N829 (a file that unpacks to far more than it is).
    """
    with _damage_told(path), _opened(path) as file:
        budget = iter(range(MOST))
        layers = _legacy(file, budget) if _is_legacy(file) else dict(_layers(file, "", budget))
        found = {name: _find(name, expected, layers) for name in expected}
        if None in found.values() and len({name.rpartition(".")[0] for name in expected}) == 1:
            found = _only_fit(path, expected, layers)
        return {name: _array(path, name, weight, found[name], layers) for name, weight in expected.items()}


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        _damaged(path, "its groups stand in a circle")
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
        _damaged(path, str(error).strip().partition("\n")[0])


def _damaged(path: Path, reason: str) -> NoReturn:
    fail(
        "N828",
        f"{path} is not a file of Keras, or it is damaged",
        notes=(reason,),
        hint="save it again: model.save_weights('model.weights.h5'), or model.save('model.keras')",
    )


# The file


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as unpacked:
        if WEIGHTS not in archive.namelist():
            _damaged(path, f"there is no {WEIGHTS} in it")
        with archive.open(WEIGHTS) as packed:
            _unpack(path, packed, unpacked)
        with h5py.File(unpacked, "r") as file:
            yield file


def _unpack(path: Path, packed: IO[bytes], unpacked: IO[bytes]) -> None:
    """Keras stores without compression; what grows all the same is no model."""
    most = 4 * path.stat().st_size + (1 << 20)
    while piece := packed.read(1 << 20):
        if unpacked.tell() + len(piece) > most:
            fail("N829", f"{path} unpacks to more than {most:,} bytes, four times its size")
        unpacked.write(piece)


def _children(group: h5py.Group, budget: Iterator[int]) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """What is in this file itself: links may lead to any file of this machine, and are not followed."""
    for name in group:
        if next(budget, None) is None:
            raise ValueError(f"it has more than {MOST:,} groups and variables")
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield name, group[name]


def _own(group: h5py.Group, name: str) -> h5py.Group | None:
    """A group in this file itself."""
    there = isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group[name] if there and isinstance(group[name], h5py.Group) else None


def _is_legacy(file: h5py.File) -> bool:
    return "model_weights" in file or "layer_names" in file.attrs


def _legacy(file: h5py.File, budget: Iterator[int]) -> Layers:
    """Keras 2's: a group a layer, in it the variables by their paths, model/dense/kernel:0."""
    found: Layers = {}
    for name, group in _children(_own(file, "model_weights") or file, budget):
        if isinstance(group, h5py.Group) and name != "optimizer_weights":
            for path, dataset in _datasets(group, "", budget):
                *outer, leaf = path.replace(":0", "").split("/")
                inner = outer[outer.index(name) :] if name in outer else [name, *outer]
                found.setdefault(".".join(inner), {})[leaf] = dataset
    return found


def _datasets(group: h5py.Group, path: str, budget: Iterator[int]) -> Iterator[tuple[str, h5py.Dataset]]:
    for name, child in _children(group, budget):
        own = f"{path}/{name}".removeprefix("/")
        if isinstance(child, h5py.Dataset):
            yield own, child
        else:
            yield from _datasets(child, own, budget)


def _layers(group: h5py.Group, path: str, budget: Iterator[int]) -> Iterator[tuple[str, dict[str, h5py.Dataset]]]:
    """Keras 3's: a group for each attribute that is a layer, with its name and its variables in `vars`."""
    for name, child in _children(group, budget):
        if name == "vars" and isinstance(child, h5py.Group):
            yield path, {n: d for n, d in _children(child, budget) if isinstance(d, h5py.Dataset)}
        elif isinstance(child, h5py.Group) and not (path == "" and name == "optimizer"):
            own = path
            if (variables := _own(child, "vars")) is not None:  # else a list of layers
                own = f"{path}.{variables.attrs.get('name', name)}".removeprefix(".")
            yield from _layers(child, own, budget)


# What is looked for


def _find(name: str, expected: Mapping[str, Weight], layers: Layers) -> h5py.Dataset | None:
    """The dataset of one of our names: blocks.0.attn.qkv.weight is in the layer blocks_0.attn.qkv."""
    owner, _, leaf = name.rpartition(".")
    parts: list[str] = []
    for part in owner.split("."):
        parts.append(f"{parts.pop()}_{part}" if part.isdigit() and parts else attribute(part))
    leaves = [x for x in ORDER if f"{owner}.{x}" in expected]
    for layer in (".".join(parts), ".".join([*parts[:-2], "_".join(parts[-2:])])):
        if layer in layers:
            return _variable(layers[layer], leaf, leaves)
    tied = [n for n in expected if n.endswith(".bias") and _lone_bias(n, expected, owner.rpartition(".")[0])]
    own = layers.get(".".join(parts[:-1]), {})  # a bias beside another layer's matrix is the block's own
    return own.get(str(tied.index(name))) if name in tied and len(own) == len(tied) else None


def _lone_bias(name: str, expected: Mapping[str, Weight], block: str) -> bool:
    owner = name.rpartition(".")[0]
    return owner.rpartition(".")[0] == block and f"{owner}.weight" not in expected


def _variable(layer: dict[str, h5py.Dataset], leaf: str, leaves: list[str]) -> h5py.Dataset | None:
    named = {LEAVES[n]: dataset for n, dataset in layer.items() if n in LEAVES}
    return named.get(leaf) if named else layer.get(str(leaves.index(leaf)))


def _only_fit(path: Path, expected: Mapping[str, Weight], layers: Layers) -> dict[str, h5py.Dataset | None]:
    """The weights of the one layer, whatever its name, that has all of these shapes."""
    leaves = [x for x in ORDER if any(n.endswith(f".{x}") for n in expected)]
    fits = {}
    for layer, variables in layers.items():
        found = {n: _variable(variables, n.rpartition(".")[2], leaves) for n in expected}
        if len(variables) == len(expected) and all(_fits(w, found[n], variables) for n, w in expected.items()):
            fits[layer] = found
    if len(fits) > 1:
        first = next(iter(expected))
        fail(
            "N822",
            f"`{first}` has the shape {expected[first].shape}, and {len(fits)} layers of {path} have it",
            notes=(f"they are {', '.join(list(fits)[:8])}",),
            hint="give the layer the name that it has in the file",
        )
    return next(iter(fits.values())) if fits else dict.fromkeys(expected)


def _fits(weight: Weight, dataset: h5py.Dataset | None, variables: dict[str, h5py.Dataset]) -> bool:
    """Whether the shape is right, and a matrix is a matrix where the file names its variables."""
    if dataset is None or _shape(weight, dataset) != weight.shape:
        return False
    wrong = {"matrix": "embeddings", "embedding": "kernel"}.get(weight.init)
    return wrong not in variables


def _shape(weight: Weight, dataset: h5py.Dataset) -> tuple[int, ...]:
    """Of a dataset, in our layout: a kernel of Keras is (in, out)."""
    return dataset.shape[::-1] if weight.init == "matrix" else dataset.shape


def _array(path: Path, name: str, weight: Weight, dataset: h5py.Dataset | None, layers: Layers) -> np.ndarray:
    if dataset is None or _shape(weight, dataset) != weight.shape:
        what = "lacks it" if dataset is None else f"has the shape {_shape(weight, dataset)} for it"
        holds = [f"{n} {' '.join(str(d.shape) for d in v.values())}" for n, v in layers.items() if v]
        note = f"its layers: {', '.join(holds[:8])}{', …' * (len(holds) > 8)}" if holds else "it holds no weights"
        fail("N822", f"`{name}` has the shape {weight.shape}, and {path} {what}", notes=(note,))
    if dataset.is_virtual or dataset.external:
        _damaged(path, f"the numbers of {dataset.name} are in another file")
    if dataset.attrs.get("dtype") == "bfloat16":
        array = (dataset[()].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif dataset.dtype.kind == "f":
        array = dataset[()].astype(np.float32)
    else:
        fail("N824", f"`{name}` in {path} is of type {dataset.dtype}", notes=("types that are read: floats",))
    return array.T if weight.init == "matrix" else array
