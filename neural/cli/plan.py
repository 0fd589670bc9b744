"""`neural plan`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from neural.cli.options import File, Json, NetworkName, Set, parse_sets

if TYPE_CHECKING:
    from neural.planning.plan import Part, Plan

UNITS = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")
KEPT_CHECKPOINTING = "kept for the backward pass: inputs of blocks, and one block that is computed again"
DEVICE_NAMES = {"cuda": "a GPU", "cpu": "a CPU"}


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


def plan(
    file: File,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences in a forward pass; by default the file's.", show_default=False)
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens in a sequence; by default the most it reads.", show_default=False)
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option(help="Whose kernels to count on; by default the file's, else cuda.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a network costs: parameters, FLOPs a token, memory for training and for generating.

    Arithmetic alone, in float32: no weight is allocated. FLOPs are those of matrix products, attention over the whole
    context among them; training is three times the forward pass (Chowdhery et al. 2022, appendix B).

    \b
    Examples:
      neural plan examples/gpt2.neural
      neural plan examples/gpt2.neural --set n_layer=48 --set d_model=1600 --set n_head=25 --batch-size 4
      neural plan examples/llama.neural --context 512 --json
    """
    from neural.cli.show import show
    from neural.compiler import load
    from neural.planning.plan import plan as make_plan

    program = load(file, parse_sets(sets), network)
    made = make_plan(program, batch_size, context, device=device and device.value)
    if json:
        from json import dumps

        print(dumps(made.to_json(), ensure_ascii=False))
        return
    show(program.messages)
    print(described(made))


def described(plan: Plan) -> str:
    """A plan for people."""
    return "\n\n".join((_size(plan), _parts(plan), _work(plan), _training(plan), _generation(plan)))


def _size(plan: Plan) -> str:
    lines = [f"{plan.network}: {plan.parameters:,} parameters"]
    if plan.embedding_parameters:
        rows = (("embedding", plan.embedding_parameters), ("non-embedding", plan.non_embedding_parameters))
        lines += _columns([(name, f"{n:,}", _share(n, plan.parameters)) for name, n in rows])
    return "\n".join(lines)


def _parts(plan: Plan) -> str:
    rows = [("part", "layer", "parameters", "share", f"FLOPs/{_token(plan)}", "activations")]
    for part in plan.parts:
        rows.append(_row(part, plan, ""))
        rows += [_row(p, plan, "  ") for p in part.parts if p.parameters or p.flops]
    return "\n".join(_columns(rows, left=2))


def _row(part: Part, plan: Plan, indent: str) -> tuple[str, ...]:
    layer = part.layer + (f" × {part.copies}" if part.copies > 1 else "")
    if part.parameters:
        numbers = f"{part.parameters:,}", _share(part.parameters, plan.parameters)
    else:
        numbers = (f"in {part.tied_to}" if part.tied_to else "", "")
    flops = _count(part.flops // plan.context) if part.flops else ""
    return indent + part.name, indent + layer, *numbers, flops, _bytes(part.activations) if part.activations else ""


def _work(plan: Plan) -> str:
    token = _token(plan)
    rows = [
        ("forward", f"{_count(plan.flops_per_token)}FLOPs"),
        ("training", f"{_count(plan.flops_per_token_training)}FLOPs"),
    ]
    lines = [
        f"work for a {token}" + (f", {plan.context:,} tokens of context" if plan.context > 1 else ""),
        *_columns(rows),
    ]
    if plan.steps is not None:
        total = plan.training_tokens * plan.flops_per_token_training
        lines.append(f"  {plan.steps:,} steps of {plan.tokens_per_step:,} {token}s: {total:.2e} FLOPs")
    return "\n".join(lines)


def _training(plan: Plan) -> str:
    memory = plan.training
    rows = [
        ("weights", memory.weights, ""),
        ("gradients", memory.gradients, ""),
        ("optimizer", memory.optimizer, plan.optimizer),
        ("activations", memory.activations, KEPT_CHECKPOINTING if plan.checkpointing else "kept for the backward pass"),
        ("logits", memory.logits, "the loss and its gradient"),
        ("total", memory.total, ""),
    ]
    return "\n".join([f"memory for training, {_batch(plan)}, on {DEVICE_NAMES[plan.device]}", *_memory(rows)])


def _generation(plan: Plan) -> str:
    memory = plan.generation
    if not plan.generates:
        return "\n".join(["memory for inference, activations aside", *_memory([("weights", memory.weights, "")])])
    note = "keys and values at full context"
    if memory.cache_in_window < memory.cache:
        note += f"; {_bytes(memory.cache_in_window)} are within a window"
    rows = [("weights", memory.weights, ""), ("cache", memory.cache, note), ("total", memory.total, "")]
    return "\n".join([f"memory for generating, {_batch(plan)}", *_memory(rows)])


def _batch(plan: Plan) -> str:
    length = f" × {plan.context:,} tokens" if plan.context > 1 else ""
    return f"batch {plan.batch_size:,}{length}, float32"


def _token(plan: Plan) -> str:
    return "token" if plan.context > 1 else "row"


def _memory(rows: list[tuple[str, int, str]]) -> list[str]:
    widest = max(len(_bytes(n)) for _, n, _ in rows)
    return [f"  {name:<11}  {_bytes(n):>{widest}}  {note}".rstrip() for name, n, note in rows]


def _columns(rows: list[tuple[str, ...]], left: int = 1) -> list[str]:
    """Rows with their columns aligned: the first `left` to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [
        [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return ["  " + "  ".join(row).rstrip() for row in cells]


def _share(n: int, total: int) -> str:
    return f"{100 * n / total:.1f} %"


def _count(n: int) -> str:
    """Three digits and a decimal prefix: 285 M."""
    power = min((len(str(n)) - 1) // 3, len(UNITS) - 1)
    return f"{_three(n / 1000**power)} {UNITS[power]}"


def _bytes(n: int) -> str:
    """Binary multiples: 7.05 GiB."""
    power = min(max(n.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{n} B" if power == 0 else f"{_three(n / 1024**power)} {UNITS[power]}iB"


def _three(x: float) -> str:
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}"
