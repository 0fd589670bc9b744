"""The tutorial's shorthand, rewritten into the explicit form that `neural check --fix` writes.

Each rule is a function from statements to statements, so that the shorthand and its fix are lowered by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import fields, is_dataclass, replace

from neural.diagnostics.diagnostic import Edit, Fix
from neural.diagnostics.source import Span
from neural.graph.messages import Messages
from neural.syntax.tree import Argument, Define, Expr, Literal, Name, Ref, Statement

Statements = tuple[Statement, ...]


def alike(a, b) -> bool:
    """Equal but for the places."""
    if is_dataclass(a) and type(a) is type(b):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name != "span")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and a == b


def _start(span: Span) -> Span:
    return Span(span.source, span.start, span.start)


def residuals(statements: Statements, messages: Messages, hidden: Container[str]) -> Statements:
    """`Add()` with no operands closes a residual that begins after the last one. hidden: names that defines have."""
    if "Add" in hidden:
        return statements
    done: list[Statement] = []
    region: list[Statement] = []
    for statement in statements:
        if (
            statement.layer.text != "Add"
            or statement.arguments
            or statement.body is not None
            or statement.repeat is not None
        ):
            region.append(statement)
            continue
        if not region:
            hint = "put the layers of the residual above it, or name what is added: `Add(a, b)`"
            messages.error("N206", "`Add()` has nothing to add: no layer stands before it", statement.span, hint=hint)
            continue
        first = region[0]
        opening = f"{statement.name.text} = Residual {{\n" if statement.name else "Residual {\n"
        edits = (Edit(_start(first.span), opening), Edit(statement.span, "}"))
        messages.note(
            "N601", "`Add()` without operands is a residual connection", statement.span,
            "adds what entered here" if not done else "adds the result of the last `Add()`",
            fix=Fix("write `Residual { … }`", edits, safe=True),
        )  # fmt: skip
        layer = Name("Residual", statement.layer.span)
        span = first.span.to(statement.span)
        done.append(Statement(statement.name, layer, (), tuple(region), None, span))
        region = []
    return (*done, *region)


def every(statements: Iterable[Statement]) -> Iterable[Statement]:
    """All statements, those in bodies included."""
    for statement in statements:
        yield statement
        yield from every(statement.body or ())


def _argument(statement: Statement, name: str) -> Argument | None:
    return next((a for a in statement.arguments if a.name and a.name.text == name), None)


def _plain_projection(statement: Statement) -> bool:
    activation = _argument(statement, "activation")
    linear = activation is None or (isinstance(activation.value, Literal) and activation.value.value == "linear")
    reads = (
        statement.arguments and statement.arguments[0].name is None and isinstance(statement.arguments[0].value, Ref)
    )
    special = reads and not statement.arguments[0].value.dollar
    return (
        statement.layer.text == "Dense"
        and linear
        and not special
        and statement.repeat is None
        and not _argument(statement, "tied_to")
    )


def _units(statement: Statement):
    given = _argument(statement, "units") or next((a for a in statement.arguments if a.name is None), None)
    return given and given.value


def projections(define: Define, messages: Messages, hidden: Container[str]) -> Statements:
    """Three Dense in a row in a define with `num_heads` and no attention: queries, keys and values."""
    body = define.body
    everything = list(every(body))
    if not any(p.name.text == "num_heads" for p in define.parameters) or "Dense" in hidden or "Attention" in hidden:
        return body
    if any(s.layer.text in ("Attention", "MultiHeadAttention") for s in everything):
        return body
    taken = {s.name.text for s in everything if s.name} | {p.name.text for p in define.parameters}
    return _rewrite(body, Ref("input", False, define.name.span), define, taken, messages) or body


def _rewrite(
    body: Statements, carrier: Ref | None, define: Define, taken: set[str], messages: Messages
) -> Statements | None:
    """The body with its first such three rewritten. carrier: a name for what flows into it."""
    for i, statement in enumerate(body):
        three = body[i : i + 3]
        if (
            len(three) == 3
            and all(map(_plain_projection, three))
            and all(alike(_units(three[0]), _units(s)) for s in three)
            and _units(three[0])
        ):
            return _attention(body, i, carrier, define, taken, messages)
        if statement.body is not None and statement.repeat is None:
            before = body[i - 1] if i else None
            inner = _rewrite(statement.body, _name_of(before) if before else carrier, define, taken, messages)
            if inner:
                return (*body[:i], replace(statement, body=inner), *body[i + 1 :])
    return None


def _name_of(statement: Statement) -> Ref | None:
    return Ref(statement.name.text, False, statement.name.span) if statement.name else None


def _fresh(base: str, taken: set[str]) -> str:
    name, n = base, 2
    while name in taken:
        name, n = f"{base}_{n}", n + 1
    taken.add(name)
    return name


def _attention(
    body: Statements, i: int, carrier: Ref | None, define: Define, taken: set[str], messages: Messages
) -> Statements:
    edits: list[Edit] = []
    before = list(body[:i])
    source = _name_of(before[-1]) if before else carrier
    if source is None and before:
        source = Ref(_fresh("hidden", taken), False, before[-1].span)
        before[-1] = replace(before[-1], name=Name(source.name, before[-1].span))
        edits.append(Edit(_start(before[-1].span), f"{source.name} = "))
    if source is None:
        return body
    named = []
    for statement, role in zip(body[i : i + 3], ("query", "key", "value"), strict=True):
        name = statement.name or Name(_fresh(role, taken), statement.span)
        named.append(
            replace(statement, name=name, arguments=(Argument(None, source, statement.span), *statement.arguments))
        )
        if statement.name is None:
            edits.append(Edit(_start(statement.span), f"{name.text} = "))
        edits.append(Edit(_start(statement.arguments[0].span), f"{source.name}, "))
    rest = body[i + 3 :]
    causal = re.search("Causal|Masked", define.name.text) is not None
    dropout = (
        rest[0]
        if rest and rest[0].layer.text == "Dropout" and rest[0].repeat is None and len(rest[0].arguments) == 1
        else None
    )
    place = dropout.span if dropout else body[i + 2].span
    text = f"Attention({', '.join(s.name.text for s in named)}, num_heads=$num_heads"
    text += (
        (", causal=true" if causal else "")
        + (f", dropout={dropout.arguments[0].value.span.text}" if dropout else "")
        + ")"
    )
    if dropout:
        edits.append(Edit(dropout.span, text))
    elif rest:
        edits.append(Edit(_start(rest[0].span), text + "\n"))
    else:
        edits.append(Edit(Span(place.source, place.end, place.end), "\n" + text))
    messages.note(
        "N602", f"three Dense in a row in `{define.name.text}` are the queries, keys and values of an attention",
        body[i].span.to(body[i + 2].span), f"attention with {'a causal mask' if causal else 'no mask'} follows",
        fix=Fix("write the attention out", tuple(edits), safe=True),
    )  # fmt: skip
    return (*before, *named, _attention_statement(named, dropout, causal, place), *rest[1 if dropout else 0 :])


def _attention_statement(named: list[Statement], dropout: Statement | None, causal: bool, place: Span) -> Statement:
    arguments = [Argument(None, Ref(s.name.text, False, place), place) for s in named]
    arguments.append(Argument(Name("num_heads", place), Ref("num_heads", True, place), place))
    if causal:
        arguments.append(Argument(Name("causal", place), Literal(True, place), place))
    if dropout:
        arguments.append(Argument(Name("dropout", place), dropout.arguments[0].value, place))
    return Statement(None, Name("Attention", place), tuple(arguments), None, None, place)


def activated_head(statements: Statements, activation: str, messages: Messages, hidden: Container[str]) -> Statements:
    """Under a cross-entropy the network gives logits: its softmax or sigmoid at the end is left to the loss."""
    if not statements or statements[-1].layer.text in hidden:
        return statements
    last = statements[-1]
    own = next((a for a in last.arguments if isinstance(a.value, Literal) and a.value.value == activation), None)
    if own is None or last.repeat is not None:
        return statements
    at = last.arguments.index(own)
    if last.layer.text == "Activation" and len(last.arguments) == 1 and len(statements) > 1:
        edit, changed = Edit(last.span, ""), ()
    elif last.layer.text in ("Dense", "Output") and any(a.name is None for a in last.arguments[at + 1 :]):
        edit = Edit(own.span, '"linear"')  # what stands behind it keeps its place
        linear = replace(own, value=Literal("linear", own.span))
        changed = (replace(last, arguments=tuple(linear if a is own else a for a in last.arguments)),)
    elif last.layer.text in ("Dense", "Output"):
        start = last.arguments[at - 1].span.end if at else own.span.start
        end = own.span.end if at or len(last.arguments) == 1 else last.arguments[1].span.start
        edit = Edit(Span(own.span.source, start, end), "")
        changed = (replace(last, arguments=tuple(a for a in last.arguments if a is not own)),)
    else:
        return statements
    messages.note(
        "N604", f"the loss takes logits, so the {activation} is left to it", last.span if not changed else own.span,
        "not applied twice; `probabilities` gives it on request", fix=Fix("remove it", (edit,), safe=True),
    )  # fmt: skip
    return (*statements[:-1], *changed)


def positions(statements: Statements, i: int, length: Expr | None, messages: Messages) -> Statements:
    """Learned positions after the Embedding at i. What reads the embedding by its name reads the sum."""
    embedding, rest = statements[i], statements[i + 1 :]
    span, place = embedding.span, Span(embedding.span.source, embedding.span.end, embedding.span.end)
    arguments = () if length is None else (Argument(Name("max_length", span), length, span),)
    text = f"PositionalEmbedding({'' if length is None else f'max_length={length.span.text}'})"
    name, edits = None, ()
    if embedding.name and (
        readers := [a for s in every(rest) for a in s.arguments if _is_value(a, embedding.name.text)]
    ):
        taken = {s.name.text for s in every(statements) if s.name}
        name = Name(_fresh(f"placed_{embedding.name.text}", taken), span)
        edits = tuple(Edit(a.span, name.text) for a in readers)
        rest = _renamed(rest, embedding.name.text, name.text)
    written = f"{name.text} = {text}" if name else text
    after = statements[i + 1].span if i + 1 < len(statements) else None  # below a comment at the line's end
    edit = Edit(_start(after), written + "\n") if after else Edit(place, "\n" + written)
    title = "attention knows no order, and this network has no positions: learned ones are added"
    fix = Fix("write them out", (edit, *edits), safe=True)
    messages.note("N603", title, span, f"reads as followed by `{text}`", fix=fix)
    added = Statement(name, Name("PositionalEmbedding", span), arguments, None, None, span)
    return (*statements[: i + 1], added, *rest)


def _is_value(argument: Argument, name: str) -> bool:
    value = argument.value
    return argument.name is None and isinstance(value, Ref) and not value.dollar and value.name == name


def _renamed(statements: Statements, old: str, new: str) -> Statements:
    """Statements that read a value under another name."""
    done = []
    for s in statements:
        arguments = (replace(a, value=replace(a.value, name=new)) if _is_value(a, old) else a for a in s.arguments)
        done.append(replace(s, arguments=tuple(arguments), body=s.body and _renamed(s.body, old, new)))
    return tuple(done)


def equal_run(statements: Statements, i: int) -> int:
    """How many statements from the i-th on are the same."""
    first = statements[i]
    n = 1
    while i + n < len(statements) and alike(first, statements[i + n]):
        n += 1
    return n


def repeated(run: Statements, messages: Messages) -> None:
    """Tell that equal statements were read as one with a count."""
    end = run[0].span.end
    edits = [Edit(Span(run[0].span.source, end, end), f" * {len(run)}"), *(Edit(s.span, "") for s in run[1:])]
    title = f"{len(run)} equal statements are read as one, `* {len(run)}`"
    messages.note(
        "N605", title, run[0].span.to(run[-1].span), fix=Fix(f"write `* {len(run)}`", tuple(edits), safe=True)
    )
