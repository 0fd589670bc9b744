"""Statements to nodes."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path

from neural.diagnostics.diagnostic import Edit, Fix, Label
from neural.diagnostics.source import Span
from neural.graph import shorthand
from neural.graph.bind import bind, check_quotes, no_value, with_defaults
from neural.graph.builder import BlockBuilder
from neural.graph.definitions import Definitions, FileParams
from neural.graph.evaluate import Scope, evaluate, identifier
from neural.graph.graph import Block, Node, Param, Tie
from neural.graph.ids import embedder
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.suggestions import suggestion
from neural.layers import REGISTRY
from neural.layers.arguments import SIZE, Kind, Parameter, parameters
from neural.layers.layer import Composite, Layer, Mismatch
from neural.layers.merging import Add
from neural.layers.values import Arg, Value, draw, same
from neural.syntax.tree import Argument, Call, Define, Literal, Ref, Statement

ANYTHING = Kind("a value", lambda _: True)
SPECIAL = ("tied_to", "weights")  # arguments that every layer takes
MOST_INSTANCES = 4096  # calls of defines, each lowered by itself
DEEPEST = 64  # defines within defines
ADDED = (
    "d_model",
    "in_features",
    "length",
)  # what the axes of a block's input are called where no parameter gives them


@dataclass
class Frame:
    """What the statements of one block see."""

    scope: Scope
    builder: BlockBuilder
    values: dict[str, Value | None]  # by the author's names; None after a mistake
    layers: dict[str, Node] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)  # names that statements give; those below are not values yet

    def read(self, name: str) -> Value:
        if self.values[name] is None:
            raise Poisoned
        return self.values[name]


class Lowering:
    """Lowers the statements of a program. One for each compilation."""

    def __init__(self, definitions: Definitions, params: FileParams, messages: Messages) -> None:
        self.definitions = definitions
        self.params = params
        self.messages = messages
        self._bodies: dict[str, tuple[Statement, ...]] = {}  # of defines, shorthand rewritten
        self._open: list[str] = []
        self._instances = 0
        self.lowered: set[str] = set()

    # Statements

    def body(self, statements: tuple[Statement, ...], running: Value | None, frame: Frame) -> Value | None:
        """Lower statements in turn; the value of the last, None after a mistake."""
        frame.coming |= {s.name.text for s in statements if s.name}
        i = 0
        while i < len(statements):
            statement = statements[i]
            run = shorthand.equal_run(statements, i)
            first = len(frame.builder.nodes)
            try:
                out = self._statement(statement, running, frame)
            except Poisoned:
                out = None
            except Mismatch as mismatch:
                self._tell(mismatch, statement, {}, frame)
                out = None
            if run > 1 and self._repeats(statement, running, out, first, frame):
                node = frame.builder.repeat(frame.builder.nodes[-1], Arg.of(run))
                shorthand.repeated(list(statements[i : i + run]), self.messages)
                out, i = node.outputs[0], i + run - 1
            self._remember(statement, out, first, frame)
            running, i = out, i + 1
        return running

    def _repeats(
        self, statement: Statement, running: Value | None, out: Value | None, first: int, frame: Frame
    ) -> bool:
        """Whether equal statements from here on may become one with a count."""
        if (
            running is None
            or out is None
            or statement.name
            or statement.repeat
            or len(frame.builder.nodes) != first + 1
        ):
            return False
        node = frame.builder.nodes[-1]
        return isinstance(node.layer, Block) and node.inputs == (running.name,) and same(running.shape, out.shape)

    def _remember(self, statement: Statement, out: Value | None, first: int, frame: Frame) -> None:
        if statement.name is None:
            return
        name = statement.name.text
        if name == "input" or name in frame.values or name in frame.scope.parameters:
            what = "a value" if name in frame.values or name == "input" else "a parameter"
            label = "a second meaning"
            self.messages.error(
                "N203", f"`{name}` is {what} already", statement.name.span, label, hint="choose another name"
            )
        else:
            frame.values[name] = out
        if len(frame.builder.nodes) > first:
            frame.layers[name] = frame.builder.nodes[-1]

    def _tell(self, mismatch: Mismatch, statement: Statement, places: dict[str, Span], frame: Frame) -> None:
        """A mismatch at the argument that it names, else at the layer with the shapes of the values that it reads."""
        at, seen = places.get(mismatch.argument), ()
        inside = at and at.source is statement.span.source and statement.span.start <= at.start < statement.span.end
        if at is not None and not inside:
            seen = (Label(statement.layer.span, "in this layer"),)
        elif at is None:
            values = [
                a for a in statement.arguments if a.name is None and isinstance(a.value, Ref) and not a.value.dollar
            ]
            known = [(a.span, frame.values.get(a.value.name)) for a in values]
            seen = tuple(Label(span, draw(v.shape)) for span, v in known if v) if len(known) > 1 else ()
        place = at or statement.layer.span
        called = at is None or bool(inside)
        self.messages.error(
            mismatch.code, mismatch.title, place, mismatch.label, secondary=seen, hint=mismatch.hint, called=called
        )

    def _statement(self, statement: Statement, running: Value | None, frame: Frame) -> Value:
        name = statement.layer.text
        if name == "Residual":
            return self._residual(statement, running, frame)
        if statement.body is not None:
            raise self.messages.error("N206", f"`{name}` takes no body", statement.layer.span, "only Residual does")
        inputs, arguments = self._inputs(statement, running, frame)
        if name in self.definitions.defines:
            return self._call(self.definitions.defines[name], statement, inputs, arguments, frame)
        if name in REGISTRY:
            return self._layer(REGISTRY[name], statement, inputs, arguments, frame)
        known = [*self.definitions.defines, *REGISTRY, "Residual"]
        help_ = suggestion(
            name, known, statement.layer.span, f"write `define {name}(…) {{ … }}`, or import the file that has it"
        )
        raise self.messages.error("N207", f"there is no layer `{name}`", statement.layer.span, **help_)

    def _inputs(
        self, statement: Statement, running: Value | None, frame: Frame
    ) -> tuple[tuple[Value | None, ...], tuple[Argument, ...]]:
        """The values that the first positional arguments name, and the arguments that are left."""
        named: list[Value | None] = []
        for argument in statement.arguments:
            ref = argument.value
            if argument.name is not None or not isinstance(ref, Ref) or ref.dollar or ref.name not in frame.values:
                break
            named.append(frame.values[ref.name])
        rest = statement.arguments[len(named) :]
        for argument in rest:
            late = argument.value
            if argument.name is None and isinstance(late, Ref) and not late.dollar and late.name in frame.values:
                if isinstance(rest[0].value, Call):
                    raise no_value(rest[0].value, self.messages)
                first = Label(rest[0].span, "an argument")
                hint = f"values come first: `{statement.layer.text}({late.name}, …)`"
                title = f"the value `{late.name}` stands behind an argument"
                raise self.messages.error("N208", title, argument.span, secondary=(first,), hint=hint)
            if (
                argument.name is None
                and isinstance(late, Ref)
                and not late.dollar
                and late.name not in frame.scope.names()
            ):
                self._no_value(late, statement, frame)
        return tuple(named) or (running,), rest

    def _no_value(self, ref: Ref, statement: Statement, frame: Frame) -> None:
        choices = [c for p in parameters(REGISTRY.get(statement.layer.text, Frame)) for c in p.kind.choices]
        check_quotes(ref, choices, frame.scope, self.messages)
        title = f"no value and no parameter is called `{ref.name}`"
        if ref.name in frame.coming:
            hint = "move its statement above this one"
            raise self.messages.error("N209", title, ref.span, "it is made further down", hint=hint)
        known = [*frame.values, *frame.scope.names()]
        otherwise = f"name a value above, `{ref.name} = Layer(…)`, or bind a parameter, `param {ref.name} = 2` or `--set {ref.name}=2`"
        help_ = suggestion(ref.name, known, ref.span, otherwise)
        raise self.messages.error("N209", title, ref.span, **help_)

    def _special(self, statement: Statement, frame: Frame) -> tuple[str | None, Node | None, Argument | None]:
        """`weights="…"` and `tied_to=name`: the file, the layer, and where it is named."""
        weights = tied = place = None
        for argument in statement.arguments:
            if argument.name is None or argument.name.text not in SPECIAL:
                continue
            if argument.name.text == "weights":
                if not isinstance(argument.value, Literal) or not isinstance(argument.value.value, str):
                    hint = 'write it in quotes: `weights="model.safetensors"`'
                    raise self.messages.error(
                        "N312", "`weights` takes the name of a file", argument.value.span, hint=hint
                    )
                weights = argument.value.value
                self.check_weights(weights, argument.value.span)
                continue
            ref = argument.value
            place = argument
            tied = frame.layers.get(ref.name) if isinstance(ref, Ref) else None
            if tied is None:
                name = ref.name if isinstance(ref, Ref) else ref.value if isinstance(ref, Literal) else None
                otherwise = "name a layer above, in the same block: `tokens = Embedding(…)`, then `tied_to=tokens`"
                help_ = {"hint": otherwise}
                if isinstance(name, str):
                    help_ = suggestion(name, frame.layers, ref.span, otherwise)
                if name in frame.layers:
                    help_ = {"label": "without quotes", "fix": Fix(f"write `{name}`", (Edit(ref.span, name),))}
                raise self.messages.error("N210", "`tied_to` takes the name of a layer", ref.span, **help_)
        return weights, tied, place

    def check_weights(self, file: str, span: Span) -> None:
        """Warn of weights that are not there yet."""
        try:
            there = file.startswith("hf:") or (Path(span.source.name).parent / file).exists()
        except OSError:  # a name that no file can have
            there = False
        if not there:
            self.messages.warning("N211", f"there is no file {file} yet", span, "needed when the program runs")

    def _repeat(self, statement: Statement, scope: Scope) -> Arg | None:
        if statement.repeat is None:
            return None
        count = evaluate(statement.repeat, scope, self.messages)
        if not SIZE.accepts(count.value):
            named = f"{count.root} = " if count.root != repr(count.value) else ""
            label = f"this is {named}{shown(count.value)}"
            raise self.messages.error("N313", f"a count is {SIZE.expected}", statement.repeat.span, label, called=True)
        return count

    # Layers

    def _layer(
        self, cls: type, statement: Statement, inputs: tuple[Value | None, ...], arguments, frame: Frame
    ) -> Value:
        name = statement.layer.text
        declared = parameters(cls)
        given, places = bind(
            name, declared, arguments, frame.scope, self.messages, statement.layer.span, skip=lambda n: n in SPECIAL
        )
        weights, tied, place = self._special(statement, frame)
        repeat = self._repeat(statement, frame.scope)
        self._arity(cls, name, inputs, statement)
        known = self._readable(cls, inputs, statement)
        layer = cls(**with_defaults(declared, given))
        if (
            repeat is not None
            and tied is None
            and len(known) == 1
            and isinstance(layer, Layer)
            and layer.effects(*known)
        ):
            return self._repeated(replace(statement, arguments=arguments), known[0], repeat, frame)
        own = statement.name.text if statement.name else None
        try:
            if isinstance(layer, Composite):
                block, passed = self._composite(layer, name, known, given)
                node = frame.builder.add(
                    block, known, name=own, kind=name, span=statement.span, arguments=passed, weights_from=weights
                )
            else:
                node = frame.builder.add(layer, known, name=own, kind=name, span=statement.span, weights_from=weights)
        except Mismatch as mismatch:
            self._tell(mismatch, statement, places, frame)
            raise Poisoned from None
        if tied is not None:
            self._tie(node, tied, place, known, frame)
        return self._counted(node, repeat, known, statement, frame)

    def _arity(self, cls: type, name: str, inputs: tuple[Value | None, ...], statement: Statement) -> None:
        low, high = cls.arity
        if not low <= len(inputs) <= high:
            wanted = (
                f"{low} or more values"
                if high > 9
                else f"{low} to {high} values"
                if high > low
                else f"{low} value{'s' * (low != 1)}"
            )
            joined = "join them first: `Concatenate(a, b)` or `Add(a, b)`"
            hint = f"name them: `a = …`, `b = …`, then `{name}(a, b)`" if low > 1 else joined
            raise self.messages.error(
                "N403", f"{name} takes {wanted}, and has {len(inputs)}", statement.layer.span, hint=hint
            )

    def _readable(self, cls: type, inputs: tuple[Value | None, ...], statement: Statement) -> tuple[Value, ...]:
        """The inputs, when they are known and none is ids that this layer would take for numbers."""
        known = _known(inputs)
        if any(v.dtype == "int64" for v in known) and not cls.takes_ids:
            title = f"{statement.layer.text} takes numbers, and this input is token ids"
            raise self.messages.error(
                "N405", title, statement.layer.span, hint="put an Embedding between the input and this layer"
            )
        return known

    def _tie(self, node: Node, source: Node, place: Argument, inputs: tuple[Value, ...], frame: Frame) -> None:
        values = {v.name: v for v in (*frame.builder.inputs, *(v for n in frame.builder.nodes for v in n.outputs))}
        shapes = []
        for n in (source, node):
            own = (
                {}
                if isinstance(n.layer, Block)
                else {w.name: w.shape for w in n.layer.weights(*(values[i] for i in n.inputs))}
            )
            shapes.append(own.get("weight") if n.repeat is None else None)
        if None in shapes or any(len(s) != 2 for s in shapes):
            title = "only layers with one matrix share it: Dense, Output and Embedding"
            raise self.messages.error(
                "N210", title, place.value.span, secondary=_seen(source, "this has none") if shapes[0] is None else ()
            )
        if shapes[0] != shapes[1] and shapes[0] != shapes[1][::-1]:
            title = f"a weight of {shapes[1]} cannot be one of {shapes[0]}"
            raise self.messages.error(
                "N413", title, place.value.span, "the other layer's", secondary=_seen(source, f"this is {shapes[0]}")
            )
        transposed = shapes[0] != shapes[1]
        if transposed and not hasattr(node.layer, "use_bias"):
            raise self.messages.error(
                "N413", f"a table of {shapes[1]} cannot be a weight of {shapes[0]}", place.value.span
            )
        frame.builder.ties.append(Tie(node.name, source.name, transposed))

    def _counted(
        self, node: Node, repeat: Arg | None, inputs: tuple[Value, ...], statement: Statement, frame: Frame
    ) -> Value:
        out = node.outputs[0]
        if repeat is None:
            return out
        if len(inputs) != 1:
            title = "a repeated statement reads one value, its own result"
            raise self.messages.error("N414", title, statement.repeat.span, f"this one reads {len(inputs)}")
        if not same(inputs[0].shape, out.shape) or inputs[0].dtype != out.dtype:
            title = f"a repeated statement keeps its input's shape, and this makes {draw(out.shape)} of {draw(inputs[0].shape)}"
            hint = "let it end with the shape that it began with"
            raise self.messages.error("N414", title, statement.layer.span, hint=hint)
        if any(t.target == node.name for t in frame.builder.ties):
            raise self.messages.error(
                "N414", "copies have weights of their own, and this one's is tied", statement.repeat.span
            )
        return frame.builder.repeat(node, repeat).outputs[0]

    # Blocks

    def _residual(self, statement: Statement, running: Value | None, frame: Frame) -> Value:
        shortcut = self._shortcut(statement)
        repeat = self._repeat(statement, frame.scope)
        if not statement.body:
            raise self.messages.error(
                "N206", "Residual needs a body", statement.layer.span, "empty", hint="write `Residual { … }`"
            )
        if repeat is not None:
            return self._repeated(statement, running, repeat, frame)
        body = self.body(statement.body, running, frame)
        if running is None or body is None:
            raise Poisoned
        if shortcut is not None:
            running = self._statement(shortcut, running, frame)
        if not same(running.shape, body.shape) or running.dtype != body.dtype:
            into, out = draw(running.shape), draw(body.shape)
            last = Label(statement.body[-1].layer.span, f"the body ends with {out}")
            hint = "end the body with the width that it began with, or project: `Residual(shortcut=Dense(…)) { … }`"
            title = f"a residual adds {into} and {out}"
            first = f"enters with {into}" if shortcut is None else f"the shortcut gives {into}"
            place = shortcut.layer.span if shortcut else statement.layer.span
            raise self.messages.error("N401", title, place, first, secondary=(last,), hint=hint)
        own = statement.name.text if statement.name else None
        return frame.builder.add(Add(), (running, body), name=own, kind="Add", span=statement.span).outputs[0]

    def _shortcut(self, statement: Statement) -> Statement | None:
        for argument in statement.arguments:
            call = argument.value
            if argument.name is None or argument.name.text != "shortcut" or not isinstance(call, Call):
                span = argument.span
                raise self.messages.error(
                    "N301", "Residual takes `shortcut=Layer(…)` and nothing else", span, hint="write `Residual { … }`"
                )
            return Statement(None, call.callee, call.arguments, None, None, call.span)
        return None

    def _repeated(self, statement: Statement, running: Value | None, repeat: Arg, frame: Frame) -> Value:
        """Copies need a class of their own: a define without a name."""
        if running is None:
            raise Poisoned
        kind = f"{statement.layer.text}Block"
        name = "".join(p.capitalize() for p in statement.name.text.split("_")) if statement.name else kind
        scope = Scope({}, lambda ref: frame.scope.read(ref).named(identifier(ref.name)), frame.scope.names())
        scope.places = frame.scope.places
        inner = self._inward(running, [], scope)
        builder = BlockBuilder((inner,))
        child = Frame(scope, builder, {"input": inner})
        out = self.body((replace(statement, repeat=None, name=None),), inner, child)
        if out is None:
            raise Poisoned
        params, passed = _added_axes(inner, running, ())
        params += [Param(identifier(n), a) for n, a in scope.lifted.items()]
        passed += [(identifier(n), frame.scope.read(Ref(n, True, statement.span))) for n in scope.lifted]
        block = builder.finish(name, tuple(params), out)
        own = statement.name.text if statement.name else None
        node = frame.builder.add(block, (running,), name=own, kind=kind, span=statement.span, arguments=tuple(passed))
        return self._counted(node, repeat, (running,), statement, frame)

    def _call(
        self, define: Define, statement: Statement, inputs: tuple[Value | None, ...], arguments, frame: Frame
    ) -> Value:
        name = define.name.text
        if name in REGISTRY:
            self.messages.note("N212", f"`{name}` here is the define, and hides the built-in layer", define.name.span)
        if name in self._open or len(self._open) >= DEEPEST:
            circle = " → ".join([*self._open, name][-4:])
            raise self.messages.error(
                "N213", f"`{name}` is made of itself: {circle}", statement.layer.span, "recursion never ends"
            )
        declared = tuple(
            Parameter(p.name.text, ANYTHING, MISSING if p.default is None else None, "") for p in define.parameters
        )
        given, places = bind(
            name, declared, arguments, frame.scope, self.messages, statement.layer.span, skip=lambda n: n in SPECIAL
        )
        weights, tied, place = self._special(statement, frame)
        if tied is not None:
            raise self.messages.error("N210", "a define has no weight of its own to share", place.span)
        repeat = self._repeat(statement, frame.scope)
        if len(inputs) != 1:
            hint = "join them first: `Concatenate(a, b)` or `Add(a, b)`"
            raise self.messages.error(
                "N403", f"{name} takes 1 value, and has {len(inputs)}", statement.layer.span, hint=hint
            )
        known = _known(inputs)
        self.messages.calls.append(statement.layer.span)
        try:
            block, passed = self._instantiate(define, known[0], given, places, frame)
        finally:
            self.messages.calls.pop()
        own = statement.name.text if statement.name else None
        node = frame.builder.add(
            block, known, name=own, kind=name, span=statement.span, arguments=passed, weights_from=weights
        )
        return self._counted(node, repeat, known, statement, frame)

    def _instantiate(
        self, define: Define, outer: Value, given: dict[str, Arg], places: dict[str, Span], frame: Frame
    ) -> tuple[Block, tuple]:
        """A define with its parameters' values and its input's shape settled."""
        name = define.name.text
        self._instances += 1
        if self._instances > MOST_INSTANCES:
            hint = "repeat with `* n`, which counts once, in place of calls one by one"
            title = f"the defines unfold into more than {MOST_INSTANCES:,} blocks"
            raise self.messages.error("N216", title, define.name.span, "one of them", hint=hint)
        bound: dict[str, Arg | None] = {n: Arg(a.value, identifier(n), a.root) for n, a in given.items()}
        scope = Scope(bound, self.params.read, self.params.scope.outer_names)
        scope.places = places
        params = self._parameters(define, given, scope)
        inner = self._inward(outer, [(n, bound[n], given[n]) for n in given], scope, self._widths(define))
        builder = BlockBuilder((inner,))
        self._open.append(name)
        try:
            out = self.body(self.statements_of(define), inner, Frame(scope, builder, {"input": inner}))
        finally:
            self._open.pop()
        if out is None or any(a is None for a in bound.values()):
            raise Poisoned
        self.lowered.add(name)
        axes, passed = _added_axes(inner, outer, params)
        lifted = [Param(identifier(n), a) for n, a in scope.lifted.items()]
        passed += [(identifier(n), a) for n, a in given.items()]
        passed += [(identifier(n), self._handed_down(n, frame)) for n in scope.lifted]
        every = sorted(
            (*axes, *params, *lifted), key=lambda p: p.default is not None
        )  # what defaults read stands before them
        block = builder.finish(name, tuple(every), out)
        self.warn_of_unread(block)
        return block, tuple(passed)

    def _handed_down(self, name: str, frame: Frame) -> Arg:
        """A parameter of the file that a define reads is its constructor's argument, handed down by every caller."""
        ref = Ref(name, True, None)
        if name in frame.scope.parameters:  # the caller's own parameter of that name hides it
            arg = self.params.read(ref)
            return arg.named(repr(arg.value))
        return frame.scope.read(ref)

    def _parameters(self, define: Define, given: dict[str, Arg], scope: Scope) -> tuple[Param, ...]:
        required, optional = [], []
        for p in define.parameters:
            name = p.name.text
            default = None
            if p.default is not None:
                try:
                    value = evaluate(p.default, scope, self.messages)
                    default = value.text
                    if name not in given:
                        scope.parameters[name] = Arg(value.value, identifier(name), value.root)
                except Poisoned:
                    scope.parameters.setdefault(name, None)
            arg = scope.parameters.get(name) or Arg.of(None)
            (required if default is None else optional).append(Param(identifier(name), arg, default))
        return (*required, *optional)

    def _widths(self, define: Define) -> set[str]:
        """Parameters that the body uses as a width."""
        found = set()
        for statement in shorthand._every(define.body):
            for argument in statement.arguments:
                keyed = argument.name and (
                    argument.name.text in ("units", "output_dim")
                    or (isinstance(argument.value, Ref)
                    and argument.value.name == argument.name.text)
                )
                if isinstance(argument.value, Ref) and keyed:
                    found.add(argument.value.name)
        return found

    def _inward(
        self, outer: Value, bound: list[tuple[str, Arg, Arg]], scope: Scope, widths: set[str] = frozenset()
    ) -> Value:
        """The input in the terms of the block: its width by a parameter that has the value, else by one that is added."""

        def inside(axis: Arg, last: bool) -> Arg:
            if axis.axis == "B":
                return axis
            equal = [
                (own, passed.text == axis.text, n in widths)
                for n, own, passed in bound
                if type(passed.value) is int and passed.value == axis.value
            ]
            if last and equal:
                return replace(axis, text=max(equal, key=lambda e: e[1:])[0].text)
            features = "d_model" if len(outer.shape) == 3 else "in_features"
            added = features if last and outer.dtype != "int64" else "length"
            return replace(axis, text=added if added not in scope.names() else f"{added}_in")

        return Value("x", tuple(inside(a, i == len(outer.shape) - 1) for i, a in enumerate(outer.shape)), outer.dtype)

    def _composite(
        self, layer: Composite, name: str, inputs: tuple[Value, ...], given: dict[str, Arg]
    ) -> tuple[Block, tuple]:
        bound = {
            n: Arg(a.value, n, a.root)
            for n, a in given.items()
            if a.value is not None and not isinstance(a.value, bool)
        }
        inner = self._inward(inputs[0], [(n, bound[n], given[n]) for n in bound], Scope(bound))
        builder = BlockBuilder((inner,))
        inside = replace(layer, **bound)

        def build(cls: type, *values: Value, name: str | None = None, **arguments: Arg) -> Value:
            return builder.add(cls(**arguments), values, name=name, kind=cls.__name__).outputs[0]

        out = inside.body(build, inner)
        params, passed = _added_axes(inner, inputs[0], ())
        params += [Param(n, a) for n, a in bound.items()]
        return builder.finish(name, tuple(params), out), (*passed, *((n, given[n]) for n in bound))

    def statements_of(self, define: Define) -> tuple[Statement, ...]:
        """A define's body with the shorthand rewritten."""
        name = define.name.text
        if name not in self._bodies:
            hidden = self.definitions.defines
            body = shorthand.residuals(define.body, self.messages, hidden)
            self._bodies[name] = shorthand.projections(replace(define, body=body), self.messages, hidden)
        return self._bodies[name]

    def place_positions(self, define: Define) -> None:
        """Learned positions after the Embedding of the input in a define, or in one that it calls."""
        defines = self.definitions.defines
        body = self.statements_of(define)
        i = embedder(body, ("input",), True, defines)
        if body[i].layer.text in defines:
            self.place_positions(defines[body[i].layer.text])
        else:
            self._bodies[define.name.text] = shorthand.positions(body, i, None, self.messages)

    def warn_of_unread(self, block: Block) -> None:
        """Tell of statements whose value goes nowhere."""
        read = {name for node in block.nodes for name in node.inputs} | set(block.outputs)
        for node in block.nodes:
            if node.span and not any(v.name in read for v in node.outputs):
                hint = "remove it, or name it and read it below"
                self.messages.warning(
                    "N214", "nothing reads the value of this statement", node.span, "computed in vain", hint=hint
                )

    def check_uncalled(self) -> None:
        """Tell the mistakes of defines that were never lowered, as far as they show without values."""
        for name, define in self.definitions.defines.items():
            if not define.body:
                self.messages.error("N206", f"the define `{name}` is empty", define.name.span, hint="give it a layer")
            if name in self.lowered:
                continue
            scope = Scope(
                {p.name.text: None for p in define.parameters}, self.params.read, self.params.scope.outer_names
            )
            self._open.append(name)
            self.body(self.statements_of(define), None, Frame(scope, BlockBuilder(()), {"input": None}))
            self._open.pop()


def _known(inputs: tuple[Value | None, ...]) -> tuple[Value, ...]:
    if any(v is None for v in inputs):
        raise Poisoned
    return inputs


def _added_axes(inner: Value, outer: Value, params: tuple[Param, ...]) -> tuple[list[Param], list[tuple[str, Arg]]]:
    """Constructor arguments for the axes of the input that no parameter gives, and what is passed for them."""
    own = {p.name for p in params}
    axes = [
        (i, o)
        for i, o in zip(inner.shape, outer.shape, strict=True)
        if i.axis != "B" and i.text.startswith(ADDED) and i.text not in own
    ]
    return [Param(i.text, i) for i, _ in axes], [(i.text, o) for i, o in axes]


def _seen(node: Node, text: str) -> tuple[Label, ...]:
    return (Label(node.span, text),) if node.span else ()
