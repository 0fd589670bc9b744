"""A plan for people, and for tools."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neural.planning.cost import Cost
    from neural.planning.fit import Way
    from neural.planning.hardware import Hardware
    from neural.planning.plan import Part, Plan

UNITS = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")
KEPT_CHECKPOINTING = "kept for the backward pass: inputs of blocks, and one block that is computed again"
DEVICE_NAMES = {"cuda": "on a GPU", "cpu": "on a CPU"}


def described(
    plan: Plan, hardware: Hardware | None = None, ways: tuple[Way, ...] | None = None, cost: Cost | None = None
) -> str:
    """A plan for people. ways: changes with which it would fit, None where it fits. cost: None where it is unknown."""
    parts = [_size(plan), _parts(plan), _work(plan), _training(plan), _generation(plan)]
    parts += [_devices(plan, hardware, ways)] if hardware else []
    return "\n\n".join([*parts, *([_cost(plan, cost)] if cost else [])])


def as_json(plan: Plan, hardware: Hardware | None, ways: tuple[Way, ...] | None, cost: Cost | None) -> str:
    """The same as one JSON object."""
    found = plan.to_json()
    if hardware:
        changes = [{"change": way.change, "total": way.plan.training.total} for way in ways or ()]
        fits = None if hardware.usable is None else ways is None
        found["hardware"] = asdict(hardware) | {"usable": hardware.usable, "fits": fits, "ways_to_fit": changes}
    if cost:
        found["cost"] = asdict(cost)
    return dumps(found, ensure_ascii=False)


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
        *([("copies", memory.copies, _copied(plan))] if memory.copies else []),
        ("activations", memory.activations, KEPT_CHECKPOINTING if plan.checkpointing else "kept for the backward pass"),
        ("logits", memory.logits, "the loss and its gradient"),
        *([("process", memory.process, "Python, torch and their libraries")] if memory.process else []),
        *([("fragments", memory.fragments, "free between arrays")] if memory.fragments else []),
        ("total", memory.total, f"at the peak, {memory.peak}"),
    ]
    batch = _batch(plan, plan.device_batch)
    where = DEVICE_NAMES[plan.device] if plan.layout.devices == 1 else f"on each of {plan.layout.devices} devices"
    return "\n".join([f"memory for training, {batch}, {plan.precision}, {where}", *_memory(rows)])


def _copied(plan: Plan) -> str:
    """What copies are of."""
    half = [] if plan.precision == "float32" else [f"matrices in {plan.precision}"]
    gathered = ["slices, gathered"] if plan.layout.sliced else []
    buckets = ["gradients, in buckets"] if plan.layout.groups > 1 and plan.layout.tensor == 1 and not gathered else []
    return " and ".join([*half, *gathered, *buckets])


def _devices(plan: Plan, hardware: Hardware, ways: tuple[Way, ...] | None) -> str:
    """Whether it fits, and what to change."""
    layout = plan.layout
    shared = f", {layout}, a batch of {plan.device_batch} each" if layout.devices > 1 else ""
    title = f"{layout.devices} × {hardware.name}{shared}"
    if hardware.memory is None or hardware.usable is None:
        return f"{title}\n  how much memory it has is not known"
    whose = "for what a plan does not know" if hardware.kind == "cpu" else "the framework's"
    left = f"of {_bytes(hardware.memory)}{' that are free' if hardware.kind == 'cpu' else ''}; the rest is {whose}"
    rows = [("needs", plan.training.total, ""), ("can have", hardware.usable, left)]
    lines = [title, *_memory(rows)]
    if ways is None:
        return "\n".join([*lines, f"  it fits: {plan.training.total / hardware.usable:.0%} is used"])
    if not ways:
        return "\n".join([*lines, "  it does not fit, and no batch, checkpointing or slicing makes it"])
    changes = [(way.change, _bytes(way.plan.training.total)) for way in ways]
    return "\n".join([*lines, "  it does not fit; it does with", *("  " + line for line in _columns(changes))])


def _cost(plan: Plan, cost: Cost) -> str:
    """Time, energy, money, and what they rest on."""
    assumed, token = cost.assumed, _token(plan)
    rows = [
        ("a step", _seconds(cost.step_seconds), f"{plan.tokens_per_step:,} {token}s"),
        ("speed", f"{_count(round(cost.tokens_per_second))}{token}s/s", ""),
        ("time", _seconds(cost.seconds), ""),
    ]
    if cost.kwh is not None:
        rows.append(("energy", f"{_three(cost.kwh)} kWh", f"at {assumed.watts:,.0f} W a device"))
    if cost.money is not None:
        rows.append(("cost", f"${cost.money:,.2f}", f"at ${assumed.price:,.2f} an hour a device"))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"  {name.ljust(widths[0])}  {text.rjust(widths[1])}  {note}".rstrip() for name, text, note in rows]
    peak = f"{_count(round(assumed.flops))}FLOPs/s in {plan.precision}"
    return "\n".join([f"{cost.tokens:,} {token}s, assumed that {assumed.share:.0%} of {peak} are useful", *lines])


def _seconds(seconds: float) -> str:
    """In the unit that fits: 12 ms, 3.2 s, 14 min, 2.6 hours, 31 days."""
    for size, unit in ((86400 * 2, "days"), (3600, "hours"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{_three(seconds / (86400 if unit == 'days' else size))} {unit}"
    return f"{_three(seconds * 1000)} ms"


def _generation(plan: Plan) -> str:
    memory = plan.generation
    if not plan.generates:
        return "\n".join(["memory for inference, activations aside", *_memory([("weights", memory.weights, "")])])
    note = "keys and values at full context"
    if memory.cache_in_window < memory.cache:
        note += f"; {_bytes(memory.cache_in_window)} are within a window"
    rows = [("weights", memory.weights, ""), ("cache", memory.cache, note), ("total", memory.total, "")]
    return "\n".join([f"memory for generating, {_batch(plan, plan.batch_size)}, float32", *_memory(rows)])


def _batch(plan: Plan, size: int) -> str:
    length = f" × {plan.context:,} tokens" if plan.context > 1 else ""
    return f"batch {size:,}{length}"


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
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:,.0f}"
