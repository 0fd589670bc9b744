"""The file itself: metadata and a table of tensors. No count, length or offset is believed before it was held against
the size of the file, so that a damaged or lying file costs neither memory nor time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from neural.diagnostics.diagnostic import fail

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 1 had counts of 32 bits, and no tool has written it since 2023
ALIGNMENT = 32  # unless general.alignment says otherwise

# Far above what is in use: a vocabulary of 262,144 tokens makes a header of 16 MB.
LARGEST_HEADER = 1 << 27  # bytes
LARGEST_ARRAY = 1 << 22  # elements
LARGEST_KEY = (1 << 16) - 1  # bytes
LARGEST_ALIGNMENT = 1 << 20
MOST_DIMENSIONS = 4

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # struct's codes
FLOAT32, STRING, ARRAY = 6, 8, 9
LEAST_PAIR = 8 + 1 + 4 + 1  # bytes: a key of one letter, its type, a value
LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file. shape: as NumPy has it, the fastest axis last."""

    shape: tuple[int, ...]
    type: str  # "F32", "Q4_K"
    offset: int  # bytes from the beginning of the file
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Container:
    """metadata: whole numbers, floats (float32 as its shortest decimal), bools, strings and lists of them."""

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, Stored]

    def load(self, name: str) -> Array:
        """A tensor's numbers, dequantised, float32."""
        import numpy as np
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        stored = self.tensors[name]
        kind = GGMLQuantizationType[stored.type]
        if kind is GGMLQuantizationType.F32:
            return np.fromfile(self.path, "<f4", stored.n_bytes // 4, offset=stored.offset).reshape(stored.shape)
        block, size = GGML_QUANT_SIZES[kind]
        raw = np.fromfile(self.path, np.uint8, stored.n_bytes, offset=stored.offset)
        with np.errstate(all="ignore"):  # a scale of infinity is the file's own
            return dequantize(raw.reshape(*stored.shape[:-1], stored.shape[-1] // block * size), kind)


def open_container(path: Path) -> Container:
    """NeuralError N880 (no GGUF), N881 (damaged metadata), N882 (a table of tensors that does not fit the file), N886
    (a type of numbers that is not known). OSError as the system gives it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _Header(file, min(size, LARGEST_HEADER), path)
        n_tensors, n_pairs = _counts(header)
        metadata = dict(_pairs(header, n_pairs))
        entries = [_entry(header) for _ in range(n_tensors)]
        return Container(path, metadata, _table(header, metadata, entries, size))


def decimal(value: float) -> float:
    """The shortest decimal that is the same in float32: 1e-05 for 9.999999747378752e-06."""
    import numpy as np

    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


class _Header:
    """A cursor that never reads past the end."""

    def __init__(self, file: BinaryIO, end: int, path: Path) -> None:
        self.file, self.end, self.path = file, end, path
        self.position = 0

    @property
    def left(self) -> int:
        return self.end - self.position

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            self.damaged(f"{what} would take {count:,} bytes, and {self.left:,} are left")
        data = self.file.read(count)
        if len(data) < count:  # cut while we read
            self.damaged(f"it ends within {what}")
        self.position += count
        return data

    def number(self, code: str, what: str) -> int | float | bool:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def string(self, what: str) -> str:
        data = self.take(self.number("Q", f"the length of {what}"), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.damaged(f"{what} is not UTF-8")

    def damaged(self, what: str, code: str = "N881") -> NoReturn:
        fail(
            code,
            f"{self.path} is damaged: {what}",
            notes=(f"at byte {self.position:,}",) if code == "N881" else (),
            hint="download it again: a file that was cut off or changed looks like this",
        )


def _counts(header: _Header) -> tuple[int, int]:
    """How many tensors and pairs of metadata follow."""
    magic = header.take(min(4, header.left), "the magic")
    if magic != MAGIC:
        found = f"it begins with {magic!r}" if magic else "it is empty"
        fail("N880", f"{header.path} is not a GGUF file: {found}", hint="a GGUF file begins with the letters GGUF")
    version = header.number("I", "the version")
    if version not in VERSIONS:
        swapped = version.to_bytes(4, "little") in {v.to_bytes(4, "big") for v in VERSIONS}
        what = "its bytes are in big-endian order" if swapped else f"its version is {version}"
        fail(
            "N880",
            f"{header.path} cannot be read: {what}, and versions 2 and 3 in little-endian order are known",
            hint="convert the model again with a newer llama.cpp",
        )
    n_tensors, n_pairs = header.number("Q", "the number of tensors"), header.number("Q", "the number of pairs")
    if n_tensors * LEAST_TENSOR + n_pairs * LEAST_PAIR > header.left:
        header.damaged(f"{n_tensors:,} tensors and {n_pairs:,} pairs of metadata do not fit into it")
    return n_tensors, n_pairs


def _pairs(header: _Header, count: int) -> Iterator[tuple[str, object]]:
    seen = set()
    for _ in range(count):
        key = header.string("a key of the metadata")
        if not 0 < len(key) <= LARGEST_KEY or key in seen:
            header.damaged(f"the key {key[:60]!r} is given twice" if key in seen else "a key of the metadata is empty")
        seen.add(key)
        yield key, _value(header, header.number("I", "a type of the metadata"), key)


def _value(header: _Header, kind: int, key: str) -> object:
    if kind == STRING:
        return header.string(key)
    if kind == FLOAT32:
        return decimal(header.number(SCALARS[kind], key))
    if kind in SCALARS:
        return header.number(SCALARS[kind], key)
    if kind != ARRAY:
        header.damaged(f"{key} has the type {kind}, which is none")
    kind, count = header.number("I", f"the type of {key}"), header.number("Q", f"the length of {key}")
    if count > LARGEST_ARRAY:
        header.damaged(f"{key} would have {count:,} elements")
    if kind == STRING:
        return [header.string(key) for _ in range(count)]
    if kind not in SCALARS:
        header.damaged(f"{key} is a list of the type {kind}, which is none")
    import numpy as np

    code = np.dtype(SCALARS[kind]).newbyteorder("<")
    return np.frombuffer(header.take(count * code.itemsize, key), code).tolist()


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int  # from the beginning of the tensors' data


def _entry(header: _Header) -> _Entry:
    name = header.string("a tensor's name")
    n = header.number("I", "a number of axes")
    if not 1 <= n <= MOST_DIMENSIONS:
        header.damaged(f"the tensor {name[:60]!r} has {n:,} axes, and a tensor has 1 to {MOST_DIMENSIONS}", "N882")
    axes = [header.number("Q", f"the shape of {name}") for _ in range(n)]
    kind, offset = header.number("I", f"the type of {name}"), header.number("Q", f"the place of {name}")
    return _Entry(name, tuple(reversed(axes)), kind, offset)


def _table(header: _Header, metadata: dict[str, object], entries: list[_Entry], size: int) -> dict[str, Stored]:
    """The tensors by name, each wholly inside the file and none over another."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        header.damaged(f"general.alignment is {alignment!r}, and it is a power of two")
    start = -(-header.position // alignment) * alignment
    tensors: dict[str, Stored] = {}
    for entry in entries:
        stored = _placed(header, entry, start)
        if entry.name in tensors:
            header.damaged(f"the tensor {entry.name!r} is given twice", "N882")
        if entry.offset % alignment:
            header.damaged(f"{entry.name} lies at {entry.offset:,}, which is no multiple of {alignment}", "N882")
        if stored.offset + stored.n_bytes > size:
            over = stored.offset + stored.n_bytes - size
            header.damaged(f"{entry.name} ends {over:,} bytes after the end of the file", "N882")
        tensors[entry.name] = stored
    in_order = sorted(tensors.items(), key=lambda item: item[1].offset)
    for (name, one), (other, two) in pairwise(in_order):
        if one.offset + one.n_bytes > two.offset:
            header.damaged(f"the tensors {name} and {other} overlap", "N882")
    return tensors


def _placed(header: _Header, entry: _Entry, start: int) -> Stored:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if entry.kind not in set(GGMLQuantizationType):
        fail("N886", f"{entry.name} in {header.path} has numbers of type {entry.kind}, which is not known")
    kind = GGMLQuantizationType(entry.kind)
    block, size = GGML_QUANT_SIZES[kind]
    elements = 1
    for axis in entry.shape:
        elements *= axis
    if not elements or entry.shape[-1] % block:
        header.damaged(
            f"{entry.name} has the shape {entry.shape}, and {kind.name} holds rows of multiples of {block}", "N882"
        )
    return Stored(entry.shape, kind.name, start + entry.offset, elements // block * size)


def check_types(container: Container) -> None:
    """NeuralError N886 for the first tensor of a type whose numbers NumPy cannot unpack."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    first = {stored.type: name for name, stored in reversed(container.tensors.items())}
    for kind, name in first.items():
        one_block = np.zeros((1, GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]), np.uint8)
        try:
            dequantize(one_block, GGMLQuantizationType[kind])
        except NotImplementedError:
            fail(
                "N886",
                f"{name} in {os.fspath(container.path)} has numbers of type {kind}, which cannot be unpacked",
                hint="take a file of another quantisation: F16, BF16, Q8_0, Q4_0, Q4_K and the like are known",
            )
