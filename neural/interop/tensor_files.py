"""Weights in safetensors files: one file, a folder of shards with an index, or files of pieces of tensors; matrices may
be small integers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural.diagnostics.diagnostic import fail
from neural.interop.fields import read_object
from neural.quantization.matrix import BITS, QuantizedMatrix

NAME = "model.safetensors"
INDEX = "model.safetensors.index.json"
# How torch.distributed.checkpoint says, in a file's metadata, where pieces lie: {name: {"saved_offsets": [0, 64]}}.
SHARDING = "DCP_SHARDING_INFO"
OFFSETS = "saved_offsets"
SHARD_BYTES = 5 * 10**9
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

Offset = tuple[int, ...]  # where a piece begins in its tensor, an axis each

_WIDTHS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_QUANTIZED = {"I8": np.dtype("i1"), "U8": np.dtype("u1"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, not read yet."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # its first byte in the file

    def read(self, name: str) -> np.ndarray:
        """float32, read-only. NeuralError N824 for numbers that float32 does not hold."""
        if self.dtype not in _WIDTHS:
            fail(
                "N824",
                f"`{name}` in {self.file} is of type {self.dtype}",
                notes=(f"types that are read: {', '.join(_WIDTHS)}",),
                hint="quantised or integer weights have no exact form here: take the original weights",
            )
        if 0 in self.shape:
            return np.zeros(self.shape, np.float32)
        raw = np.memmap(self.file, _WIDTHS[self.dtype], "r", self.start, self.shape)
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw) if self.dtype == "F32" else raw.astype(np.float32)

    def part(self) -> np.ndarray:
        """As it is stored, read-only: what a quantised matrix is made of."""
        if self.dtype not in _QUANTIZED:
            raise ValueError(f"numbers of type {self.dtype}")
        return np.asarray(np.memmap(self.file, _QUANTIZED[self.dtype], "r", self.start, self.shape))


@dataclass(frozen=True, slots=True)
class Joined:
    """A tensor in pieces, not read yet: where each begins in the whole, an axis each."""

    pieces: tuple[tuple[Offset, Stored], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return joined_shape("it", [(at, piece.shape) for at, piece in self.pieces])

    def read(self, name: str) -> np.ndarray:
        """float32. NeuralError N824 as above, N825 where the pieces do not make a whole."""
        whole = np.empty(joined_shape(name, [(at, piece.shape) for at, piece in self.pieces]), np.float32)
        for at, piece in self.pieces:
            whole[box(at, piece.shape)] = piece.read(name)
        return whole


def joined_shape(name: str, boxes: Iterable[tuple[Offset, tuple[int, ...]]]) -> tuple[int, ...]:
    """The shape of a tensor in boxes, each given by its offset and shape. NeuralError N825 where they leave holes."""
    boxes = list(boxes)
    shape = tuple(map(max, zip(*(tuple(map(sum, zip(*b, strict=True))) for b in boxes), strict=True)))
    held = sum(math.prod(size) for _, size in boxes)
    if held != math.prod(shape):
        fail("N825", f"the pieces of `{name}` hold {held:,} numbers of {math.prod(shape):,}")
    return shape


def box(offset: Offset, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """What a piece takes of the whole."""
    return tuple(slice(at, at + n) for at, n in zip(offset, shape, strict=True))


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of files by name. Each is read when it is asked for, narrower floats widened to float32, and so are
    matrices that are stored quantised, "w.int8" or "w.int4" beside "w.scales" (and "w.zeros") as `w`.
    """

    def __init__(self, stored: Mapping[str, Stored | Joined]) -> None:
        self.stored = stored
        self._bits = {
            name: bits
            for bits in BITS.values()
            for name in (stored_name.removesuffix(f".int{bits}") for stored_name in stored)
            if f"{name}.int{bits}" in stored and f"{name}.scales" in stored
        }
        parts = {part for name in self._bits for part in self._parts(name)}
        self._names = dict.fromkeys([*(name for name in stored if name not in parts), *self._bits])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._matrix(name).dequantized() if name in self._bits else self.stored[name].read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def quantized(self) -> dict[str, QuantizedMatrix]:
        """The matrices that are stored quantised, as they are, in memory that the file is mapped to.

        NeuralError N994 where integers and scales do not fit each other.
        """
        return {name: self._matrix(name) for name in self._bits}

    def _parts(self, name: str) -> list[str]:
        """What a quantised matrix is stored in."""
        return [
            f"{name}.{end}" for end in (f"int{self._bits[name]}", "scales", "zeros") if f"{name}.{end}" in self.stored
        ]

    def _matrix(self, name: str) -> QuantizedMatrix:
        parts = {part: self.stored[part] for part in self._parts(name)}
        try:
            return QuantizedMatrix.from_tensors(name, {part: stored.part() for part, stored in parts.items()})
        except ValueError as error:
            fail(
                "N994",
                f"{parts[f'{name}.scales'].file} holds a quantised matrix that does not read: {error}",
                hint="quantise the model again",
            )


def read_tensors(path: Path) -> TensorFiles:
    """The tensors of a safetensors file, or of a folder with one or with shards.

    NeuralError: N820 (nothing there), N823 (a damaged file), N825 (shards that do not fit their index), N826 (pickles).
    """
    if path.is_dir():
        return TensorFiles(_shards(path) if (path / INDEX).is_file() else _headers(_single(path)))
    if not path.is_file():
        fail("N820", f"there is no file {path}")
    return TensorFiles(_headers(path))


def read_pieces(files: Iterable[Path]) -> TensorFiles:
    """The tensors of files that hold them whole or in pieces. NeuralError N823 (a damaged file)."""
    found: dict[str, list[tuple[Offset, Stored]]] = {}
    for path in files:
        headers = _headers(path)
        offsets = offsets_of(_header(path)[1].get("__metadata__"))
        for name, stored in headers.items():
            found.setdefault(name, []).append((offsets.get(name, (0,) * len(stored.shape)), stored))
    return TensorFiles({n: Joined(tuple(p)) if len(p) > 1 else p[0][1] for n, p in found.items()})


def _single(folder: Path) -> Path:
    if (folder / NAME).is_file():
        return folder / NAME
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        fail(
            "N826",
            f"the weights in {folder} are in {pickles[0]}, a pickle",
            notes=("a pickle can run any program when it is opened, so it is never read",),
            hint=f"save them as {NAME} where you trust them: model.save_pretrained(folder) in transformers does",
        )
    holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:12])
    return fail("N820", f"the folder {folder} has no {NAME}", notes=(f"it holds: {holds}" if holds else "it is empty",))


def _shards(folder: Path) -> dict[str, Stored]:
    index = folder / INDEX
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) and Path(v).name == v for v in places.values()):
        fail("N825", f"{index} has no `weight_map` from tensors to files beside it")
    found: dict[str, Stored] = {}
    for shard in dict.fromkeys(places.values()):
        if not (folder / shard).is_file():
            fail("N825", f"the shard {shard} is missing in {folder}", notes=(f"{INDEX} names it",))
        headers = _headers(folder / shard)
        for name in headers:
            if places.get(name) != shard:
                fail("N825", f"{folder / shard} holds `{name}`, and {INDEX} places it elsewhere")
        found |= headers
    for name, shard in places.items():
        if name not in found:
            fail("N825", f"{INDEX} places `{name}` in {shard}, which does not hold it")
    return {name: found[name] for name in places}


def _headers(path: Path) -> dict[str, Stored]:
    """What a file holds. The library checks the header (its size, the ranges of bytes, the shapes) in Rust."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        fail(
            "N823",
            f"{path} is not a whole safetensors file: {error}",
            hint="it was cut short or changed: fetch or save it again",
        )
    first, header = _header(path)
    header.pop("__metadata__", None)
    return {
        name: Stored(path, entry["dtype"], tuple(entry["shape"]), first + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the first tensor begins, and the entries by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length))


def offsets_of(metadata: Mapping[str, str] | None) -> dict[str, Offset]:
    """Where the pieces in a file begin, by the metadata in its header; nothing for tensors that are whole."""
    said = json.loads((metadata or {}).get(SHARDING, "{}"))
    return {name: tuple(place[OFFSETS]) for name, place in said.items()}


def write_file(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """One safetensors file."""
    from safetensors.numpy import save_file

    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, path, {"format": "pt"})
    path.chmod(0o644)  # the library's file is its owner's alone


def write_tensors(tensors: Mapping[str, np.ndarray], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """model.safetensors in a folder; above `shard_bytes` several files and their index, as Hugging Face names them."""
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    files = [NAME] if len(shards) == 1 else [_shard(i, len(shards)) for i in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        write_file(shard, folder / file)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
            "weight_map": {n: file for file, shard in zip(files, shards, strict=True) for n in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shard(i: int, n: int) -> str:
    return f"model-{i + 1:05}-of-{n:05}.safetensors"
