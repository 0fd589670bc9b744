"""An ONNX file on the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir

INLINE_BYTES = 2**31 - 2**24  # protobuf ends at 2 GiB; what is no weight is small


def write(model: ir.Model, path: Path) -> None:
    """Write a model whole or not at all; weights of 2 GB and more beside it, in `path`.data.

    OSError as the system gives it, with nothing left beside `path`.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    data = f"{path.name}.data" if size > INLINE_BYTES else None
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        ir.save(model, folder / path.name, external_data=data)
        for file in folder.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if data:
            path.unlink(missing_ok=True)  # an old model must never be read with the new weights
            (folder / data).replace(path.with_name(data))
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
