"""Tensors, or pieces of them, in a safetensors file.

Where several processes each write theirs, the files say where each piece lies in its tensor, in the words of
torch.distributed.checkpoint's HuggingFaceStorageWriter, so that torch's own reader takes them. That writer itself
builds each file in memory, knows no weight whose rows stand in another order than in the file (a fused product under
tensor parallelism), plans by pickles between the processes, and has no mark that tells a whole checkpoint from half of
one. DCP's other format keeps its index as a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from neural.data.durable import sync
from neural.interop.tensor_files import OFFSETS, SHARDING, Offset, box, joined_shape, offsets_of


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor. `offset`: where it begins in the whole, an axis each; None if it is the whole."""

    tensor: torch.Tensor
    offset: Offset | None = None

    def copied(self) -> Self:
        """On the host, in memory of its own; from a GPU it is there once the device has been waited for."""
        return type(self)(self.tensor.to("cpu", non_blocking=True, copy=True), self.offset)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a checkpoint's mark says of a file."""

    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> FileRecord:
    """Write a file and flush it to the disk. OSError as the system gives it."""
    metadata = {"format": "pt"}
    if any(piece.offset for piece in pieces.values()):
        offsets = {n: {OFFSETS: piece.offset or [0] * piece.tensor.ndim} for n, piece in pieces.items()}
        metadata[SHARDING] = json.dumps(offsets)
    try:
        save_file({name: piece.tensor.contiguous() for name, piece in pieces.items()}, path, metadata)
    except SafetensorError as error:  # the library wraps the system's error in its own
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(0o644)  # the library's file is its owner's alone
    sync(path)
    return FileRecord.of(path)


class PieceFiles(Mapping[str, torch.Tensor]):
    """The tensors of files that hold them whole or in pieces, on the CPU; each is read when it is asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, list[tuple[Offset | None, safe_open]]] = {}
        for path in paths:
            file = safe_open(path, "pt")
            offsets = offsets_of(file.metadata())
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                self._places.setdefault(name, []).append((offsets.get(name), file))

    def __getitem__(self, name: str) -> torch.Tensor:
        """NeuralError N825 where the pieces do not make a whole."""
        pieces = [(offset, file.get_tensor(name)) for offset, file in self._places[name]]
        first = pieces[0][1]
        if len(pieces) == 1:
            return first
        whole = first.new_empty(joined_shape(name, [(at, tuple(piece.shape)) for at, piece in pieces]))
        for at, piece in pieces:
            whole[box(at, tuple(piece.shape))] = piece
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
