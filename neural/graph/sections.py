"""The sections of a network, but its layers, to settings."""

from __future__ import annotations

from dataclasses import MISSING, fields

from neural.diagnostics.diagnostic import Label
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Span
from neural.graph.bind import bind, check_quotes, with_defaults
from neural.graph.evaluate import Scope, evaluate
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.optimization import OPTIMIZERS, SCHEDULES, AdamW
from neural.graph.reading import check_weights
from neural.graph.settings import Choice, Settings, Train
from neural.graph.suggestions import suggestion
from neural.layers.arguments import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    RATE,
    SIZE,
    TEXT,
    Parameter,
    choice,
    parameters,
)
from neural.layers.values import Arg
from neural.syntax.tree import Argument, Call, Literal, Map, Network, Ref, Section, Sequence

SECTIONS = ("input", "layers", "weights", "loss", "optimizer", "lr_schedule", "metrics", "tokenizer", "data")
SECTIONS += ("train", "execution")

LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
)
CROSS_ENTROPIES = ("sparse_categorical_crossentropy", "categorical_crossentropy")
# What takes logits, and the activation that it applies to them itself
ACTIVATED = dict.fromkeys(CROSS_ENTROPIES, "softmax") | {"binary_crossentropy": "sigmoid"}
PRECISIONS = ("float32", "bfloat16", "float16")
METRICS = ("accuracy", "perplexity", "bits_per_byte", "mean_squared_error", "mean_absolute_error")


_TRAIN_KINDS = {
    "steps": SIZE, "epochs": POSITIVE, "batch_size": SIZE, "gradient_accumulation": SIZE,
    "gradient_clip": POSITIVE.optional(), "skip_spikes": BOOLEAN,
    "validation_split": RATE, "eval_every": SIZE, "eval_batches": SIZE, "sample_every": COUNT, "save_every": SIZE,
    "keep_checkpoints": SIZE, "log_every": SIZE, "seed": COUNT,
}  # fmt: skip
TRAIN = tuple(Parameter(f.name, _TRAIN_KINDS[f.name], Arg.of(f.default), "") for f in fields(Train))
EXECUTION = (
    Parameter("device", choice("auto", "cpu", "cuda"), Arg.of("auto"), "where it runs"),
    Parameter("precision", choice("auto", *PRECISIONS), Arg.of("auto"), "in which products are computed in training"),
    Parameter("compile", BOOLEAN.optional(), Arg.of(None), "whether training compiles the model; None: where it wins"),
    Parameter("activation_checkpointing", BOOLEAN, Arg.of(False), "whether blocks are computed again, not kept"),
)


def check_keys(network: Network, messages: Messages) -> dict[str, Section]:
    """The sections by name; unknown ones and second ones are told."""
    found: dict[str, Section] = {}
    for section in network.sections:
        key = section.key.text
        if key not in SECTIONS:
            help_ = suggestion(key, SECTIONS, section.key.span, f"a network has {', '.join(SECTIONS)}")
            messages.error("N501", f"a network has no section `{key}`", section.key.span, **help_)
        elif key in found:
            first = (Label(found[key].key.span, "first here"),)
            messages.error("N502", f"the section `{key}` stands twice", section.key.span, "again here", secondary=first)
        else:
            found[key] = section
    return found


def lower_settings(sections: dict[str, Section], scope: Scope, messages: Messages) -> Settings:
    """All sections but `input` and `layers`. After mistakes, the defaults stand in."""
    readers = {
        "loss": lambda v: _named(v, "loss", LOSSES, "N503", scope, messages),
        "optimizer": lambda v: _choice(v, "optimizer", OPTIMIZERS, "N504", scope, messages),
        "lr_schedule": lambda v: _choice(v, "schedule", SCHEDULES, "N505", scope, messages),
        "metrics": lambda v: _metrics(v, scope, messages),
        "tokenizer": lambda v: _text(v, "tokenizer", scope, messages),
        "data": lambda v: _text(v, "data", scope, messages),
        "weights": lambda v: _weights(v, scope, messages),
        "train": lambda v: Train(**_map(v, "train", TRAIN, scope, messages)),
        "execution": lambda v: _map(v, "execution", EXECUTION, scope, messages),
    }
    settings = {}
    for key, read in readers.items():
        if key in sections:
            try:
                settings[key] = read(sections[key].value)
            except Poisoned:
                continue
    settings.setdefault("optimizer", _defaults("AdamW", AdamW))
    made = Settings(**settings)
    _check_together(made, sections, messages)
    return made


def _check_together(settings: Settings, sections: dict[str, Section], messages: Messages) -> None:
    if settings.lr_schedule and "lr_schedule" in sections:
        rate, low = (
            settings.optimizer.arguments["learning_rate"],
            settings.lr_schedule.arguments.get("min_learning_rate") or 0,
        )
        if low > rate:
            span = _place(sections["lr_schedule"], "min_learning_rate")
            given = "optimizer" in sections and _place(sections["optimizer"], "learning_rate")
            second = (Label(given, "the learning rate"),) if given else ()
            title = f"the schedule's minimum {low} is above the learning rate {rate}"
            messages.error(
                "N508", title, span, "the minimum", secondary=second, hint="lower the minimum, or raise the rate"
            )
    if settings.train.steps and settings.train.epochs:
        span, first = _place(sections["train"], "epochs"), Label(_place(sections["train"], "steps"), "and so does this")
        title = "`steps` and `epochs` both say how long to train"
        messages.error("N507", title, span, "this says it", secondary=(first,), hint="keep one of them")


def _place(section: Section, name: str) -> Span:
    """Of an argument or a key in a section, else of the section's value."""
    value = section.value
    written = value.arguments if isinstance(value, Call) else value.entries if isinstance(value, Map) else ()
    named = {(a.name if isinstance(a, Argument) else a.key): a for a in written}
    return next((a.value.span for n, a in named.items() if n and n.text == name), value.span)


def _named(value, what: str, names: tuple[str, ...], code: str, scope: Scope, messages: Messages) -> str:
    check_quotes(value, names, scope, messages)
    arg = evaluate(value, scope, messages)
    if arg.value in names:
        return arg.value
    known = f"known: {', '.join(names)}"
    if not isinstance(arg.value, str):
        raise messages.error(
            code, f"a {what} is named by a string", value.span, f"this is {shown(arg.value)}", hint=known
        )
    help_ = suggestion(arg.value, names, value.span, known, '"')
    raise messages.error(code, f"there is no {what} {shown(arg.value)}", value.span, **help_)


def _choice(value, what: str, table: dict[str, type], code: str, scope: Scope, messages: Messages) -> Choice:
    if isinstance(value, Literal) and isinstance(value.value, str):
        found = {n.lower(): n for n in table}.get(value.value.lower())
        return (
            _defaults(found, table[found]) if found else _unknown(value.value, value.span, what, table, code, messages)
        )
    if not isinstance(value, Call):
        name = value.name if isinstance(value, Ref) else ""
        near = name if name in table else nearest(name, table)
        hint = f"write `{near}()`" if near else f"such as `{next(iter(table))}()`"
        raise messages.error(code, f"a{'n' * (what[0] == 'o')} {what} is written as a call", value.span, hint=hint)
    name = value.callee.text
    if name not in table:
        return _unknown(name, value.callee.span, what, table, code, messages)
    declared = parameters(table[name])
    given, _ = bind(name, declared, value.arguments, scope, messages, value.callee.span)
    return Choice(name, {n: a.value for n, a in with_defaults(declared, given).items()})


def _unknown(name: str, span, what: str, table: dict[str, type], code: str, messages: Messages):
    quote = '"' if span.text[:1] in ("'", '"') else ""
    help_ = suggestion(name, table, span, f"known: {', '.join(table)}", quote)
    raise messages.error(code, f"there is no {what} {shown(name) if quote else f'`{name}`'}", span, **help_)


def _defaults(name: str, cls: type) -> Choice:
    return Choice(name, {p.name: p.default.value for p in parameters(cls) if p.default is not MISSING})


def _metrics(value, scope: Scope, messages: Messages) -> tuple[str, ...]:
    items = value.items if isinstance(value, Sequence) else (value,)
    found = []
    for item in items:
        try:
            found.append(_named(item, "metric", METRICS, "N506", scope, messages))
        except Poisoned:
            continue
    return tuple(found)


def _weights(value, scope: Scope, messages: Messages) -> str:
    if not isinstance(value, Literal):
        hint = 'write it in quotes: `weights: "model.safetensors"`'
        raise messages.error("N312", "`weights` takes the name of a file", value.span, hint=hint)
    file = _text(value, "weights", scope, messages)
    check_weights(file, value.span, messages)
    return file


def _text(value, key: str, scope: Scope, messages: Messages) -> str:
    if isinstance(value, Ref):
        check_quotes(value, (value.name,), scope, messages)
    arg = evaluate(value, scope, messages)
    if not TEXT.accepts(arg.value):
        raise messages.error("N509", f"`{key}` takes a string", value.span, f"this is {shown(arg.value)}")
    return arg.value


def _map(value, key: str, declared: tuple[Parameter, ...], scope: Scope, messages: Messages) -> dict:
    if not isinstance(value, Map):
        raise messages.error(
            "N510",
            f"`{key}` takes a list of keys in braces",
            value.span,
            hint=f"write `{key} {{ {declared[0].name}: … }}`",
        )
    arguments = [Argument(e.key, e.value, e.span) for e in value.entries]
    known = [a for a in arguments if a.name.text in {p.name for p in declared}]
    names = [p.name for p in declared]
    for a in arguments:
        if a not in known:
            help_ = suggestion(a.name.text, names, a.name.span, f"known: {', '.join(names)}")
            messages.error("N511", f"`{key}` has no key `{a.name.text}`", a.name.span, **help_)
    given, _ = bind(key, declared, known, scope, messages, value.span)
    return {n: a.value for n, a in given.items()}
