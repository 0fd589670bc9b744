"""Statements to nodes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import MISSING, replace

from neural.diagnostics.diagnostic import Label
from neural.diagnostics.source import Span
from neural.graph import shorthand
from neural.graph.bind import bind, with_defaults
from neural.graph.builder import BlockBuilder
from neural.graph.definitions import Definitions, FileParams
from neural.graph.edge import added_axes, inward, lower_composite, parameters_of, widths_of
from neural.graph.evaluate import Scope, evaluate, identifier
from neural.graph.graph import Block, Node, Param
from neural.graph.ids import embedder
from neural.graph.messages import Messages, Poisoned, shown
from neural.graph.reading import SPECIAL, Frame, check_arity, inputs_of, known, readable, special, tie, warn_of_unread
from neural.graph.suggestions import suggestion
from neural.layers import REGISTRY
from neural.layers.arguments import SIZE, Kind, Parameter, parameters
from neural.layers.layer import Composite, Layer, Mismatch
from neural.layers.merging import Add
from neural.layers.values import Arg, Value, draw, same
from neural.syntax.tree import Call, Define, Ref, Statement

ANYTHING = Kind("a value", lambda _: True)
MOST_INSTANCES = 4096  # calls of defines, each lowered by itself
DEEPEST = 64  # defines within defines


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
        if node.inputs != (running.name,) or not same(running.shape, out.shape):
            return False
        return isinstance(node.layer, Block) or bool(node.layer.weights(running) and not node.layer.effects(running))

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
        inputs, arguments = inputs_of(statement, running, frame, self.messages)
        if name in self.definitions.defines:
            return self._call(self.definitions.defines[name], statement, inputs, arguments, frame)
        if name in REGISTRY:
            return self._layer(REGISTRY[name], statement, inputs, arguments, frame)
        known = [*self.definitions.defines, *REGISTRY, "Residual"]
        help_ = suggestion(
            name, known, statement.layer.span, f"write `define {name}(…) {{ … }}`, or import the file that has it"
        )
        raise self.messages.error("N207", f"there is no layer `{name}`", statement.layer.span, **help_)

    def _repeat(self, statement: Statement, scope: Scope) -> Arg | None:
        if statement.repeat is None:
            return None
        count = evaluate(statement.repeat, scope, self.messages)
        if not SIZE.accepts(count.value):
            named = f"{count.root} = " if count.root != repr(count.value) else ""
            label = f"this is {named}{shown(count.value)}"
            raise self.messages.error("N313", f"a count is {SIZE.expected}", statement.repeat.span, label, called=True)
        return count

    def _arguments(self, name: str, declared: tuple[Parameter, ...], statement: Statement, arguments, frame: Frame):
        """The layer's own arguments with their places, those that any layer takes, and the count; all mistakes told."""
        bound = None
        with suppress(Poisoned):
            place = statement.layer.span
            bound = bind(name, declared, arguments, frame.scope, self.messages, place, skip=lambda n: n in SPECIAL)
        others = special(statement, frame, self.messages)
        repeat = self._repeat(statement, frame.scope)
        if bound is None:
            raise Poisoned
        return *bound, others, repeat

    # Layers

    def _layer(
        self, cls: type, statement: Statement, inputs: tuple[Value | None, ...], arguments, frame: Frame
    ) -> Value:
        name = statement.layer.text
        declared = parameters(cls)
        given, places, (weights, tied, place), repeat = self._arguments(name, declared, statement, arguments, frame)
        check_arity(cls, name, inputs, statement, self.messages)
        known = readable(cls, inputs, statement, self.messages)
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
                block, passed = lower_composite(layer, name, known, given)
                node = frame.builder.add(
                    block, known, name=own, kind=name, span=statement.span, arguments=passed, weights_from=weights
                )
            else:
                node = frame.builder.add(layer, known, name=own, kind=name, span=statement.span, weights_from=weights)
        except Mismatch as mismatch:
            self._tell(mismatch, statement, places, frame)
            if not cls.keeps_shape:
                raise Poisoned from None
            return known[0]
        if tied is not None:
            tie(node, tied, place, frame, self.messages)
        return self._counted(node, repeat, known, statement, frame)

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
            change = f"{draw(out.shape)} of {draw(inputs[0].shape)}"
            title = f"a repeated statement keeps its input's shape, and this makes {change}"
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
        inner = inward(running, [], scope)
        builder = BlockBuilder((inner,))
        child = Frame(scope, builder, {"input": inner})
        out = self.body((replace(statement, repeat=None, name=None),), inner, child)
        if out is None:
            raise Poisoned
        params, passed = added_axes(inner, running, ())
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
        given, places, (weights, tied, place), repeat = self._arguments(name, declared, statement, arguments, frame)
        if tied is not None:
            raise self.messages.error("N210", "a define has no weight of its own to share", place.span)
        if len(inputs) != 1:
            hint = "join them first: `Concatenate(a, b)` or `Add(a, b)`"
            raise self.messages.error(
                "N403", f"{name} takes 1 value, and has {len(inputs)}", statement.layer.span, hint=hint
            )
        values = known(inputs)
        self.messages.calls.append(statement.layer.span)
        try:
            block, passed = self._instantiate(define, values[0], given, places, frame)
        finally:
            self.messages.calls.pop()
        own = statement.name.text if statement.name else None
        node = frame.builder.add(
            block, values, name=own, kind=name, span=statement.span, arguments=passed, weights_from=weights
        )
        return self._counted(node, repeat, values, statement, frame)

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
        params = parameters_of(define, given, scope, self.messages)
        inner = inward(outer, [(n, bound[n], given[n]) for n in given], scope, widths_of(define))
        builder = BlockBuilder((inner,))
        self._open.append(name)
        try:
            out = self.body(self.statements_of(define), inner, Frame(scope, builder, {"input": inner}))
        finally:
            self._open.pop()
        if out is None or any(a is None for a in bound.values()):
            raise Poisoned
        self.lowered.add(name)
        axes, passed = added_axes(inner, outer, params)
        lifted = [Param(identifier(n), a) for n, a in scope.lifted.items()]
        passed += [(identifier(n), a) for n, a in given.items()]
        passed += [(identifier(n), self._handed_down(n, frame)) for n in scope.lifted]
        every = sorted(
            (*axes, *params, *lifted), key=lambda p: p.default is not None
        )  # what defaults read stands before them
        block = builder.finish(name, tuple(every), out)
        warn_of_unread(block, self.messages)
        return block, tuple(passed)

    def _handed_down(self, name: str, frame: Frame) -> Arg:
        """A parameter of the file that a define reads is its constructor's argument, handed down by every caller."""
        ref = Ref(name, True, None)
        if name in frame.scope.parameters:  # the caller's own parameter of that name hides it
            arg = self.params.read(ref)
            return arg.named(repr(arg.value))
        return frame.scope.read(ref)

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
