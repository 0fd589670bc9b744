"""The command line: `neural COMMAND`. One file a command; each imports what it needs inside its handler."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from neural.diagnostics.diagnostic import Diagnostic, NeuralError
from neural.diagnostics.out_of_memory import asked_for, is_out_of_memory

SYSTEM_ERRORS = {
    "ENOSPC": "the disk is full",
    "EDQUOT": "the disk quota is used up",
    "EACCES": "permission denied",
    "EPERM": "permission denied",
    "EROFS": "the file system is read-only",
    "ENOENT": "no such file or folder",
    "EISDIR": "this is a folder",
    "ENOTDIR": "a part of the path is not a folder",
    "EFBIG": "the file is too large for the file system",
    "EMFILE": "too many open files",
    "ENAMETOOLONG": "the name is too long",
    "EIO": "the disk failed",
}


EXTRAS = {
    "torch": "torch",
    "tokenizers": "torch",
    "safetensors": "torch",
    "jinja2": "torch",
    "llguidance": "torch",
    "tensorboard": "torch",
    "matplotlib": "torch",
    "wandb": "wandb",
    "huggingface_hub": "hub",
    "gguf": "hub",
    "keras": "tensorflow",
    "tensorflow": "tensorflow",
    "h5py": "tensorflow",
    "jax": "jax",
    "flax": "jax",
    "optax": "jax",
    "onnx": "onnx",
    "onnx_ir": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
}


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 our fault, 2 the user's mistake, 3 `quantize`'s, 130 interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from neural.cli.app import app

        code = app(standalone_mode=False)
    except NeuralError as error:
        code = _show(error.diagnostics)
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:
        code = _failed(error)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """At Ctrl-C. While torch loads it ends the process at once: torch takes an exception in NumPy's loading for a NumPy
    that is not there, and goes on with half of it.
    """
    torch = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        os.write(2, b"\ninterrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return 130


def _show(diagnostics: tuple[Diagnostic, ...]) -> int:
    from neural.cli.show import show

    show(diagnostics)
    return 2


def _failed(error: Exception) -> int:
    import errno

    import typer

    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):  # what click makes of KeyboardInterrupt
        return _interrupted()
    if hasattr(error, "show"):  # a mistake on the command line, of a class that typer keeps to itself
        error.show()
        return 2
    if isinstance(error, OSError) and (reason := SYSTEM_ERRORS.get(errno.errorcode.get(error.errno or 0, ""))):
        where = f"{error.filename}: " if error.filename else ""
        return _show((Diagnostic("N010", f"{where}{reason}"),))
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        hint = f"pip install 'neural-dsl[{extra}]'"
        return _show((Diagnostic("N015", f"this needs {error.name}, which is not installed", hint=hint),))
    if is_out_of_memory(error):
        hint = "free some, or ask for less: a shorter context, a smaller batch or model"
        return _show((Diagnostic("N016", f"memory ran out{asked_for(error)}", hint=hint),))
    if os.environ.get("NEURAL_TRACEBACK"):
        raise error
    print(
        f"neural failed: {type(error).__name__}: {error}\n"
        "This is a fault of neural, not of your input. NEURAL_TRACEBACK=1 shows where.",
        file=sys.stderr,
    )
    return 1
