"""A `network` to a graph with its settings."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from neural.diagnostics.diagnostic import Label
from neural.diagnostics.source import Span
from neural.graph import shorthand
from neural.graph.builder import BlockBuilder
from neural.graph.definitions import Definitions, FileParams
from neural.graph.evaluate import Scope, evaluate, identifier
from neural.graph.graph import Block, Network, Node, Param, Placed, count_parameters, primitives
from neural.graph.ids import embedder, embedding
from neural.graph.lower import Lowering
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.reading import Frame, warn_of_unread
from neural.graph.sections import ACTIVATED, CROSS_ENTROPIES, check_keys, lower_settings
from neural.graph.settings import Settings
from neural.layers.activation import Activation
from neural.layers.arguments import LARGEST, SIZE
from neural.layers.attention import Attention
from neural.layers.dense import Dense
from neural.layers.effects import Positions
from neural.layers.rotary import Rotary
from neural.layers.values import BATCH, Arg, Value, draw, same
from neural.syntax import tree

TOKENIZER_SIZES = {"gpt2": 50257, "byte": 257}


def lower_network(
    definitions: Definitions, params: FileParams, network: tree.Network, messages: Messages
) -> Network | None:
    """The graph, or None after mistakes."""
    lowering = Lowering(definitions, params, messages)
    scope = Scope({}, params.read, params.scope.outer_names)
    sections = check_keys(network, messages)
    settings = lower_settings(sections, scope, messages)
    inputs = _inputs(sections, network, scope, messages)
    layers = sections["layers"].value if "layers" in sections else ()
    _check_whole(network, sections, messages)
    statements = shorthand.residuals(tuple(layers), messages, definitions.defines)
    if settings.loss in ACTIVATED:
        activation = ACTIVATED[settings.loss]
        statements = shorthand.activated_head(statements, activation, messages, definitions.defines)
    block = _block(lowering, network, statements, inputs, scope, params, messages)
    if block is not None and _needs_positions(block):
        block = _with_positions(lowering, network, statements, inputs, scope, params, messages) or block
    lowering.check_uncalled()
    if block is None or messages.errors:
        return None
    return _described(block, settings, sections, network, messages)


def _check_whole(network: tree.Network, sections: dict, messages: Messages) -> None:
    """Tell what a network cannot do without."""
    name, missing = network.name, []
    if "input" not in sections:
        missing.append(("no input", "add `input: (1024,)`: its shape without the batch"))
    if "layers" not in sections or not sections["layers"].value:
        missing.append(("no layers", "add `layers:` and statements below it"))
    if missing:
        title = f"the network `{name.text}` has {' and '.join(m[0] for m in missing)}"
        messages.error("N512", title, name.span, hint="; ".join(m[1] for m in missing))


def _inputs(
    sections: dict, network: tree.Network, scope: Scope, messages: Messages
) -> tuple[tuple[str, tuple[Arg, ...], Span], ...]:
    """Name, shape without the batch, and place of each input."""
    if "input" not in sections:
        return ()
    value = sections["input"].value
    entries = _named_inputs(value, messages) if isinstance(value, tree.Map) else [("input", value)]
    found = []
    for name, expr in entries:
        try:
            found.append((name, _input_shape(expr, scope, messages), expr.span))
        except Poisoned:
            found.append((name, (), expr.span))
    if not entries:
        messages.error(
            "N513",
            "an input needs a name and a shape",
            value.span,
            hint="write `input: { left: (100,), right: (100,) }`",
        )
    return tuple(found)


def _named_inputs(value: tree.Map, messages: Messages) -> list[tuple[str, tree.Expr]]:
    seen: dict[str, tree.Entry] = {}
    for entry in value.entries:
        name = entry.key.text
        if name in seen:
            first = (Label(seen[name].key.span, "first here"),)
            messages.error("N513", f"the input `{name}` stands twice", entry.key.span, "again here", secondary=first)
        seen.setdefault(name, entry)
    return [(name, entry.value) for name, entry in seen.items()]


def _input_shape(expr: tree.Expr, scope: Scope, messages: Messages) -> tuple[Arg, ...]:
    if not isinstance(expr, tree.Sequence):
        evaluate(expr, scope, messages)
        hint = f"write `({expr.span.text},)`" if isinstance(expr, tree.Literal | tree.Ref) else "write `(1024,)`"
        raise messages.error("N513", "an input is a shape in brackets, without the batch", expr.span, hint=hint)
    axes = [evaluate(i, scope, messages) for i in expr.items]
    for axis, item in zip(axes, expr.items, strict=True):
        if not SIZE.accepts(axis.value):
            hint = "leave the batch out: it has no length yet" if axis.value is None else None
            raise messages.error(
                "N513", f"an axis of an input is {SIZE.expected}", item.span, f"this is {shown(axis.value)}", hint=hint
            )
    if not axes:
        raise messages.error("N513", "an input has at least one axis", expr.span, hint="write `input: (1024,)`")
    if 4 * prod(a.value for a in axes) > LARGEST:
        raise messages.error(
            "N412", "this input has more bytes than 64 bits can count", expr.span, hint="make it smaller"
        )
    return tuple(axes)


def _block(
    lowering: Lowering, network, statements, inputs, scope: Scope, params: FileParams, messages: Messages
) -> Block | None:
    defines = lowering.definitions.defines
    values = tuple(_input_value(name, shape, statements, len(inputs), defines) for name, shape, _ in inputs if shape)
    builder = BlockBuilder(values)
    known: dict[str, Value | None] = {name: None for name, _, _ in inputs}
    known |= {name: v for (name, shape, _), v in zip([i for i in inputs if i[1]], values, strict=True)}
    if len(inputs) == 1:
        known["input"] = known[inputs[0][0]]
    elif inputs and not _names_a_value(statements, known, messages):
        return None
    out = lowering.body(statements, known.get("input"), Frame(scope, builder, known))
    if out is None or not inputs:
        return None
    block = builder.finish(identifier(network.name.text), _params(scope, params), out)
    warn_of_unread(block, messages)
    return block


def _names_a_value(statements, known: dict[str, Value | None], messages: Messages) -> bool:
    """Whether the first statement says which of several inputs it reads. Told where it does not."""
    first = statements[0] if statements else None
    if (
        first is None
        or "input" in known
        or any(isinstance(a.value, tree.Ref) and a.value.name in known for a in first.arguments)
    ):
        return True
    names = list(known)
    title = f"the network has {len(names)} inputs, and this layer names none"
    messages.error("N403", title, first.layer.span, hint=f"write `{first.layer.text}({names[0]}, …)`")
    return False


def _input_value(name: str, shape: tuple[Arg, ...], statements, count: int, defines: dict[str, tree.Define]) -> Value:
    """Ids where an Embedding reads them, numbers elsewhere. The axis of ids is the length T."""
    names = (name, "input") if count == 1 else (name,)
    reads_ids = len(shape) == 1 and embedder(statements, names, count == 1, defines) is not None
    own = name if name != "input" else "input_ids" if reads_ids else "x"
    if reads_ids:
        return Value(own, (BATCH, replace(shape[0], axis="T")), "int64")
    return Value(own, (BATCH, *shape), "float32")


def _params(scope: Scope, params: FileParams) -> tuple[Param, ...]:
    """The parameters of the file that the network reads, with those that their defaults read, in the file's order."""
    wanted, queue = set(), list(scope.lifted)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            default = params.defaults.get(name)
            queue += [
                n
                for n in params.declared
                if default and identifier(n) in default.replace("(", " ").replace(")", " ").replace(",", " ").split()
            ]
    order = [*params.declared, *(n for n in params.sets if n not in params.declared)]
    found = []
    for name in order:
        if name in wanted:
            arg = params.read(tree.Ref(name, True, None))
            found.append(Param(identifier(name), arg, params.defaults.get(name) or repr(arg.value)))
    return tuple(found)


def _needs_positions(block: Block) -> bool:
    attends = any(isinstance(p.node.layer, Attention) for p in primitives(block, once=True))
    embeds = any(embedding(block, v.name) for v in block.inputs)
    return attends and embeds and not any(isinstance(e, Positions | Rotary) for e in block.effects())


def _with_positions(
    lowering: Lowering, network, statements, inputs, scope: Scope, params: FileParams, messages: Messages
) -> Block | None:
    """The block again, with learned positions after its Embedding."""
    written = next(s.value for s in network.sections if s.key.text == "input")
    shapes = {e.key.text: e.value for e in written.entries} if isinstance(written, tree.Map) else {"input": written}
    defines = lowering.definitions.defines
    for name, shape in shapes.items():
        names = (name, "input") if len(shapes) == 1 else (name,)
        i = embedder(statements, names, len(shapes) == 1, defines)
        if i is None:
            continue
        if statements[i].layer.text in defines:
            lowering.place_positions(defines[statements[i].layer.text])
        else:
            statements = shorthand.positions(statements, i, shape.items[0], messages)
        return _block(lowering, network, statements, inputs, scope, params, messages)
    return None


def _described(
    block: Block, settings: Settings, sections: dict, network: tree.Network, messages: Messages
) -> Network | None:
    """What the rest of the compiler wants to know of the whole network; and the checks that need it."""
    values = block.values()
    source, out = block.inputs[0], values[block.outputs[0]]
    nodes = list(primitives(block, once=True))
    attentions = [p.node.layer for p in nodes if isinstance(p.node.layer, Attention)]
    ids = len(block.inputs) == 1 and source.dtype == "int64"
    table = embedding(block, source.name)
    vocabulary = table.input_dim.value if table else None
    models_language = (
        ids
        and settings.loss in CROSS_ENTROPIES
        and len(out.shape) == 3
        and out.shape[1].axis == "T"
        and out.shape[-1].value == vocabulary
    )
    causal = (
        bool(attentions)
        and all(a.causal.value for a in attentions)
        and not any(p.node.layer.mixes_positions for p in nodes)
    )
    _check_head(block, out, settings, sections, messages)
    if 4 * count_parameters(block) > LARGEST:
        title = f"the network's {count_parameters(block):,} parameters have more bytes than 64 bits can count"
        messages.error("N412", title, sections["layers"].key.span, hint="make it smaller")
    sequence = _sequence(block, nodes, messages)
    if models_language and attentions and not all(a.causal.value for a in attentions):
        place = next(filter(None, _looking_ahead(block)), sections["layers"].key.span)
        title = "a language model whose attention is not causal sees the tokens that it is to predict"
        messages.warning("N606", title, place, "looks ahead", hint="write `causal=true` in its attention")
    if models_language and settings.tokenizer in TOKENIZER_SIZES and vocabulary < TOKENIZER_SIZES[settings.tokenizer]:
        needed = TOKENIZER_SIZES[settings.tokenizer]
        title = f'the tokenizer "{settings.tokenizer}" has {needed} ids, and the vocabulary has {vocabulary}'
        messages.error("N514", title, sections["tokenizer"].value.span, hint=f"make the Embedding's input_dim {needed}")
    return Network(
        block, settings, source.shape[1].value if ids else None, vocabulary if models_language else None,
        cached=causal and ids and len(out.shape) == 3, activation=ACTIVATED.get(settings.loss),
        init="gpt2" if attentions else "glorot", sequence=sequence,
    )  # fmt: skip


def _looking_ahead(block: Block) -> tuple[Span | None, ...]:
    """Where the first attention that is not causal stands, and the blocks around it."""
    for node in block.nodes:
        if isinstance(node.layer, Block) and (places := _looking_ahead(node.layer)):
            return (*places, node.span)
        if isinstance(node.layer, Attention) and not node.layer.causal.value:
            return (node.span,)
    return ()


def _sequence(block: Block, nodes: list[Placed], messages: Messages) -> str | None:
    """The input whose length masks and positions have: the network makes them once, for one sequence."""
    found = None
    for path, node, inputs, _ in nodes:
        if not node.layer.effects(*inputs):
            continue
        fitting = [
            v for v in block.inputs if len(v.shape) > 1 and all(same(v.shape[1:2], i.shape[1:2]) for i in inputs)
        ]
        symbolic = [v for v in fitting if v.shape[1].axis]
        if not fitting or len(symbolic) > 1 or (found and found not in {v.name for v in fitting}):
            lengths = ", ".join(f"{v.name} {draw(v.shape)}" for v in block.inputs)
            title = f"{path.rpartition('.')[2]} runs over a sequence that is not the network's one sequence of inputs"
            here = " and ".join(dict.fromkeys(draw(i.shape) for i in inputs))
            messages.error("N415", title, node.span, f"here {here}", notes=(f"inputs: {lengths}",))
            return None
        found = found or fitting[0].name
    return found


def _check_head(block: Block, out: Value, settings: Settings, sections: dict, messages: Messages) -> None:
    applied = ACTIVATED.get(settings.loss)
    if applied is None:
        return
    place = sections["loss"].value.span
    last, ends = _last_activation(block)
    if ends == applied or (ends == "softmax" and applied == "sigmoid"):
        title = f"{settings.loss} takes logits, and the network ends in a {ends}"
        why = "would be applied twice" if ends == applied else "makes a choice of what are questions of their own"
        loss = (Label(place, f"applies the {applied} itself"),)
        hint = f"remove this {ends}: the loss takes logits"
        messages.error("N516", title, last.span or place, why, secondary=loss, hint=hint)
    elif applied == "softmax" and out.shape[-1].value == 1:
        hint = 'use "binary_crossentropy" for one output, or two units or more'
        messages.error("N515", f"{settings.loss} chooses among classes, and the output has one", place, hint=hint)


def _last_activation(block: Block) -> tuple[Node | None, str | None]:
    """The node that the network ends in, and the name of its activation."""
    node = next((n for n in block.nodes if block.outputs[0] in (v.name for v in n.outputs)), None)
    if node is not None and isinstance(node.layer, Block):
        return _last_activation(node.layer)
    return node, node.layer.activation.value if node and isinstance(node.layer, Activation | Dense) else None
