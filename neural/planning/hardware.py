"""Devices by name: what their makers say of them, and what an hour costs to rent, for reckoning with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest

GIB = 2**30
# Of a device's memory. The rest of a GPU's is the framework's, and fragments; a CPU's plan has these, to a tenth.
USABLE = {"cuda": 0.92, "cpu": 0.9}


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device.

    memory: bytes; None where it is not known. peak: operations a second by precision, of products of dense matrices;
    float32 without TF32. watts: under load, as the maker limits it. price: of an hour, in dollars, rented from a cloud
    on demand in 2026: a guess, to be given as an option by whoever knows better.
    """

    name: str
    kind: str  # "cuda" or "cpu": whose kernels it runs
    memory: int | None
    peak: dict[str, float]
    watts: float | None
    price: float | None

    @property
    def usable(self) -> int | None:
        """Bytes that a training can have."""
        return None if self.memory is None else int(USABLE[self.kind] * self.memory)

    @property
    def precision(self) -> str:
        """What `neural train` computes products in on it, unless it is told."""
        return next((p for p in ("bfloat16", "float16") if p in self.peak), "float32")

    def flops(self, precision: str) -> float | None:
        """Operations a second in that precision, else as float32, as which it is computed where there is no other."""
        return self.peak.get(precision) or self.peak.get("float32")


def _gpu(
    name: str, gib: int, float32: float, half: float, watts: float, price: float, *, bf16: bool = True
) -> Hardware:
    """Operations in units of 10¹² a second; `half` is the same for bfloat16 and float16 where there is bfloat16."""
    peak = {"float32": float32 * 1e12, "float16": half * 1e12} | ({"bfloat16": half * 1e12} if bf16 else {})
    return Hardware(name, "cuda", gib * GIB, peak, watts, price)


# Data sheets of NVIDIA and AMD; half precision is that of tensor (matrix) cores without sparsity, sums in float32.
CATALOGUE = {
    "b200": _gpu("NVIDIA B200", 180, 75, 2250, 1000, 5.50),
    "h200": _gpu("NVIDIA H200", 141, 67, 989.4, 700, 3.50),
    "h100": _gpu("NVIDIA H100", 80, 67, 989.4, 700, 2.50),
    "a100": _gpu("NVIDIA A100 80 GB", 80, 19.5, 312, 400, 1.80),
    "a100-40gb": _gpu("NVIDIA A100 40 GB", 40, 19.5, 312, 400, 1.30),
    "l40s": _gpu("NVIDIA L40S", 48, 91.6, 362, 350, 1.00),
    "l4": _gpu("NVIDIA L4", 24, 30.3, 121, 72, 0.70),
    "rtx5090": _gpu("NVIDIA RTX 5090", 32, 104.8, 209.5, 575, 0.70),
    "rtx4090": _gpu("NVIDIA RTX 4090", 24, 82.6, 165.2, 450, 0.45),
    "rtx3090": _gpu("NVIDIA RTX 3090", 24, 35.6, 71, 350, 0.25),
    "t4": _gpu("NVIDIA T4", 16, 8.1, 65, 70, 0.35, bf16=False),
    "v100": _gpu("NVIDIA V100 32 GB", 32, 15.7, 125, 300, 0.60, bf16=False),
    "mi300x": _gpu("AMD MI300X", 192, 163.4, 1307.4, 750, 2.50),
}
CPU = Hardware("CPU", "cpu", None, {}, None, None)
GPU = Hardware("GPU", "cuda", None, {}, None, None)


def named(text: str) -> tuple[int, Hardware]:
    """`8xh100`, `rtx4090`, `4xcpu`, `this`: how many of which. NeuralError N731 for what is none."""
    found = re.fullmatch(r"(?:(\d+)\s*[x×*])?\s*([a-z][\w-]*)", text.strip().lower())
    count, name = (int(found[1] or 1), found[2]) if found else (0, text)
    if found and name in CATALOGUE:
        device = CATALOGUE[name]
    elif name in ("this", "cpu"):
        device = this_machine() if name == "this" else this_cpu()
    else:
        known = (*CATALOGUE, "cpu", "this")
        near = nearest(name, known)
        hint = f"did you mean `{near}`?" if near else f"write it like 8xh100; known: {', '.join(known)}"
        fail("N731", f"there is no device `{text}` to plan for", hint=hint)
    if count < 1:
        fail("N731", f"`{text}` is no device at all", hint=f"give 1 or more, as in `1x{name}`")
    return count, device


def this_machine() -> Hardware:
    """This machine's GPU as nvidia-smi names it, else its CPU."""
    import shutil
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return this_cpu()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    name, comma, mib = answer.stdout.partition("\n")[0].rpartition(",")
    if answer.returncode or not comma or not mib.strip().isdigit():
        return this_cpu()
    return named_like(name.strip(), int(mib) * 2**20)


def named_like(name: str, memory: int) -> Hardware:
    """A GPU as its driver names it: with the numbers of the one in the catalogue, where it is in it."""
    words = re.sub(r"[^a-z0-9]", "", name.lower())
    found = next((device for key, device in CATALOGUE.items() if key.partition("-")[0] in words), GPU)
    return replace(found, name=name, memory=memory)


def this_cpu() -> Hardware:
    """This machine's CPU with the memory that is free now. Operations a second are not known before a measurement."""
    return replace(CPU, memory=available_memory())


def available_memory() -> int | None:
    """Bytes that a new process can have here: what the system counts as available, or less in a container."""
    found = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            found += [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")]
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # noqa: PTH123
            limit = file.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:  # noqa: PTH123
            used = int(file.read())
        found += [int(limit) - used] if limit.isdigit() else []
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def available_cores() -> int:
    """Threads that PyTorch computes with here."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else os.cpu_count() or 1
