"""Which executors there are, and which one is taken. Adding one is a file, and a row here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

from neural.diagnostics.diagnostic import Diagnostic, NeuralError, fail
from neural.generation.executor import Executor, Opener
from neural.generation.request import Limits
from neural.training.compiling import lacking
from neural.training.precision import BF16, silicon
from neural.training.session import choose_device
from neural.training.trained import Trained

Say = Callable[[str], None]
WIDTHS = ("bfloat16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Kind:
    """open: gives one for a model, a width and limits; it may say what takes a while. obstacle: why it cannot be here,
    or for this model or width; None where it can. A width is one of WIDTHS, or None for float32. prepare: makes what is
    made once on a machine, and says so.
    """

    open: Callable[[Trained, str | None, Say, Limits], Executor]
    obstacle: Callable[[Trained, str | None], Diagnostic | None]
    prepare: Callable[[Say], object] = lambda say: None


def _open_torch(found: Trained, width: str | None, say: Say, limits: Limits) -> Executor:
    from neural.generation.torch_executor import TorchExecutor

    model, context = _on_its_device(found, width), found.program.context
    return TorchExecutor(model, limits, context=context, vocab_size=found.tokenizer.vocab_size)


def _on_its_device(found: Trained, width: str | None) -> nn.Module:
    return found.model.to(choose_device("auto"), torch.bfloat16 if width == BF16 else torch.float32)


def _torch_obstacle(found: Trained, width: str | None, name: str = "torch") -> Diagnostic | None:
    if width is None:
        return None
    if width != BF16:
        hint = "use --engine auto, which finds one that does"
        return Diagnostic("N968", f"the engine {name} does not quantise to {width}", hint=hint)
    device = choose_device("auto")
    if BF16 in silicon(device):
        return None
    title = f"this {device.type} has no products in bfloat16: float32 would be faster"
    return Diagnostic("N968", title, hint="leave out --quantize, or use int8")


def _open_compiled(found: Trained, width: str | None, say: Say, limits: Limits) -> Executor:
    model = _on_its_device(found, width)
    if next(model.parameters()).is_cuda:
        from neural.generation.graph_executor import GraphExecutor as Opened
    else:
        from neural.generation.compiled_executor import CompiledExecutor as Opened
    vocab_size = found.tokenizer.vocab_size
    return Opened(model, limits, context=found.program.context, vocab_size=vocab_size, say=say)


def _compiled_obstacle(found: Trained, width: str | None) -> Diagnostic | None:
    if quantised := _torch_obstacle(found, width, "compiled"):
        return quantised
    if missing := lacking(choose_device("auto")):
        return Diagnostic("N974", f"the engine compiled cannot compile here: {missing}", hint="or use --engine torch")
    return None


def _open_native(found: Trained, width: str | None, say: Say, limits: Limits) -> Executor:
    from neural.generation.native.opening import open_native

    return open_native(found, width, limits)


def _native_obstacle(found: Trained, width: str | None) -> Diagnostic | None:
    if width == BF16:
        return _of_torch_alone("native")
    from neural.generation.native.opening import obstacle

    return obstacle(found, width)


def _prepare_native(say: Say) -> None:
    from neural.cpp.building import prepare
    from neural.generation.native.library import ENGINE

    prepare(ENGINE, say)


def _open_onnxruntime(found: Trained, width: str | None, say: Say, limits: Limits) -> Executor:
    from neural.generation import onnxruntime_session
    from neural.generation.onnx_executor import open_onnx

    return open_onnx(found, width, limits, onnxruntime_session.sessions)


def _open_openvino(found: Trained, width: str | None, say: Say, limits: Limits) -> Executor:
    # Where it finds this package, OpenVINO reports its import to a server, from a fork of this process.
    sys.modules.setdefault("openvino_telemetry", None)
    from neural.generation import openvino_session
    from neural.generation.onnx_executor import open_onnx

    return open_onnx(found, width, limits, openvino_session.sessions)


def _of_torch_alone(name: str) -> Diagnostic:
    return Diagnostic("N968", f"the engine {name} has no products in bfloat16", hint="use --engine torch or compiled")


def _missing(packages: tuple[str, ...], extra: str, found: Trained, width: str | None) -> Diagnostic | None:
    if width == BF16:
        return _of_torch_alone("onnxruntime" if extra == "onnx" else extra)
    lacking = [package for package in packages if find_spec(package) is None]
    if not lacking:
        return None
    title = (
        f"the engine {extra if extra != 'onnx' else 'onnxruntime'} needs {' and '.join(lacking)}, not installed here"
    )
    return Diagnostic("N967", title, hint=f"pip install 'neural-dsl[{extra}]', or choose another --engine")


KINDS = {  # `auto` takes the first without an obstacle: after PyTorch those that take seconds to open a model
    "native": Kind(_open_native, _native_obstacle, _prepare_native),
    "torch": Kind(_open_torch, _torch_obstacle),
    "openvino": Kind(_open_openvino, partial(_missing, ("openvino", "onnx_ir"), "openvino")),
    "onnxruntime": Kind(_open_onnxruntime, partial(_missing, ("onnxruntime", "onnx_ir"), "onnx")),
    "compiled": Kind(_open_compiled, _compiled_obstacle),
}
ON_GPU = ("compiled", "torch", *KINDS)


class Chosen(NamedTuple):
    """The executor's name, and what opens it within limits."""

    name: str
    open: Opener


def choose_executor(found: Trained, name: str = "auto", width: str | None = None, say: Say = lambda _: None) -> Chosen:
    """name: of KINDS, or "auto". `say` is told of what takes a while, once.

    NeuralError N966 (no such), N967 (not installed), N968 (not for this model or width), N969 (no such width), N970 and
    N971 (the C++ compiler), N974 (torch.compile), N999 (a width for a quantised run).
    """
    if width not in (None, *WIDTHS):
        fail("N969", f"weights are not quantised to {width!r}", hint=f"choose {', '.join(WIDTHS)}")
    if width and found.quantized:
        fail("N999", f"{found.program.name} is quantised already", hint="leave out --quantize")
    if name != "auto" and name not in KINDS:
        fail("N966", f"there is no engine {name!r}", hint=f"choose auto, {', '.join(KINDS)}")
    if name == "auto":
        name = _best(found, width, say)
    elif obstacle := KINDS[name].obstacle(found, width):
        raise NeuralError(obstacle)
    else:
        KINDS[name].prepare(say)
    return Chosen(name, partial(KINDS[name].open, found, width, say))


def choose_drafter(found: Trained, small: Trained, name: str = "auto", say: Say = lambda _: None) -> Opener:
    """What opens the executor of a smaller model that is to guess for `found`. NeuralError N986 where its vocabulary is
    another, and those of `choose_executor`.
    """
    if small.tokenizer.hash != found.tokenizer.hash:
        title = f"{small.program.name} reads {small.tokenizer}, and {found.program.name} {found.tokenizer}"
        fail("N986", f"the draft model has another vocabulary: {title}", hint="use a run of the same tokenizer")
    return choose_executor(small, name, say=say).open


def _best(found: Trained, width: str | None, say: Say) -> str:
    """The first that can of those for this device."""
    obstacles = []
    for name in ON_GPU if torch.cuda.is_available() else KINDS:
        kind = KINDS[name]
        if (obstacle := kind.obstacle(found, width)) is not None:
            obstacles.append(obstacle)
            continue
        try:
            kind.prepare(say)
            return name
        except NeuralError as error:
            say(error.diagnostics[0].title)
            obstacles += error.diagnostics
    raise NeuralError(*obstacles)
