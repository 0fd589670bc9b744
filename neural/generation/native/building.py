"""The C++ as a shared library: compiled once for this machine and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from neural.diagnostics.diagnostic import fail

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
SHARED = ("-shared", "-fPIC", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
INSTALL = "install a C++ compiler (Debian: apt-get install g++), or use --engine torch"
SHOWN_LINES = 8

Say = Callable[[str], None]
P, N = ctypes.c_void_p, ctypes.c_int64
FUNCTIONS = {  # name: (result, arguments), as in source/engine.cpp
    "engine_new": (P, (N, N, N)),
    "engine_delete": (None, (P,)),
    "engine_matrix": (N, (P, N, N, N, P, P, P)),
    "engine_vector": (N, (P, N, P)),
    "engine_buffer": (N, (P, N)),
    "engine_integers": (N, (P, N, N)),
    "engine_layer": (None, (P, N, N, N, N, ctypes.c_float)),
    "engine_operation": (None, (P, P, ctypes.c_float)),
    "engine_logits": (None, (P, N)),
    "engine_page_bytes": (N, (P,)),
    "engine_make_pages": (N, (P, N)),
    "engine_copy_page": (None, (P, N, N)),
    "engine_run": (None, (P, N, P, P, P, P, N, P)),
}


def compiler() -> str | None:
    """The C++ compiler of this machine: $CXX, or the first that is found."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else next((p for p in map(shutil.which, COMPILERS) if p), None)


def prepare(say: Say = lambda _: None) -> Path:
    """Compile the library unless that is done; where it lies. `say` is told, since it takes some seconds.

    NeuralError N970 where there is no compiler, N971 where it fails.
    """
    found = compiler()
    if found is None:
        fail("N970", "the native engine needs a C++ compiler, and none is on the path", hint=INSTALL)
    sources = sorted(SOURCE.iterdir())
    stamp = hashlib.sha256(b"\0".join([*(s.read_bytes() for s in sources), repr((found, FLAGS, _machine())).encode()]))
    path = _cache_folder() / f"native-{stamp.hexdigest()[:16]}.so"
    if not path.exists():
        say("compiling the native engine for this machine: some seconds, once")
        _compile(found, path)
    return path


@cache
def library() -> ctypes.CDLL:
    """The library, compiled if need be. NeuralError: see `prepare`."""
    loaded = ctypes.CDLL(str(prepare()))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _compile(found: str, path: Path) -> None:
    """Write the library beside, then rename it: two at once do each other no harm."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [found, *FLAGS, *SHARED, str(SOURCE / "engine.cpp"), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                said = tuple(line for line in done.stderr.splitlines() if "error" in line)[:SHOWN_LINES]
                fail("N971", f"{found} could not compile the native engine", notes=said, hint=INSTALL)
            made.replace(path)
    except OSError as error:
        fail("N971", f"the native engine could not be kept in {path.parent}: {error.strerror}", hint=INSTALL)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neural"


def _machine() -> str:
    """What -march=native depends on: a cache in a home folder may be shared by unlike machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "") + platform.machine()
    return platform.platform() + platform.machine()
