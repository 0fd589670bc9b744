"""What a file and its imports define: parameters, defines, networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neural.diagnostics.diagnostic import Label
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Source, Span
from neural.graph.evaluate import Scope, evaluate
from neural.graph.messages import Messages, Poisoned
from neural.graph.suggestions import meant
from neural.layers.values import Arg
from neural.syntax.parser import parse
from neural.syntax.tree import Define, File, Import, Network, Param, Parameter, Ref

LARGEST_FILE = 64 * 2**20


@dataclass
class Definitions:
    """The names of a program. Networks are those of the main file alone."""

    files: list[File] = field(default_factory=list)  # imported ones first
    params: dict[str, Param] = field(default_factory=dict)
    defines: dict[str, Define] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)


def read_source(path: Path, messages: Messages, place: Span | None = None) -> Source:
    """The text of a program. Raises Poisoned after a message."""
    try:
        if path.is_dir():
            raise messages.error("N003", f"{path} is a folder", place, hint="name a .neural file in it")
        size = path.stat().st_size
        if path.suffix != ".neural":
            raise messages.error("N002", f"{path} is not a .neural file", place, hint="programs end in .neural")
        if not path.is_file():  # a pipe or a device: reading it might never end
            raise messages.error("N004", f"{path} cannot be read: it is not an ordinary file", place)
        if size > LARGEST_FILE:
            raise messages.error("N005", f"{path} is too large for a program: {size:,} bytes", place)
        raw = path.read_bytes()
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.neural")]) if path.parent.is_dir() else None
        raise messages.error(
            "N001", f"there is no file {path}", place, hint=f"did you mean {path.parent / near}?" if near else None
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise messages.error("N004", f"{path} cannot be read: {reason.lower()}", place) from None
    try:
        return Source(str(path), raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise messages.error(
            "N006",
            f"{path} is not UTF-8 text",
            place,
            notes=(f"byte {error.start} (line {line}) is {raw[error.start]:#04x}",),
        ) from None


def gather(main: Source, messages: Messages) -> Definitions:
    """Parse a program and what it imports."""
    found = Definitions()
    _visit(main, found, messages, seen={_identity(Path(main.name))}, main=True)
    return found


def _identity(path: Path) -> Path:
    """The same for all names of one file. What cannot be a file is itself: reading it says why."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _visit(source: Source, found: Definitions, messages: Messages, seen: set[Path], main: bool) -> None:
    file, diagnostics = parse(source)
    for diagnostic in diagnostics:
        messages.add(diagnostic)
    for item in file.items:
        if isinstance(item, Import):
            path = Path(source.name).parent / str(item.path.value)
            if _identity(path) in seen:
                continue
            seen.add(_identity(path))
            try:
                _visit(read_source(path, messages, item.path.span), found, messages, seen, main=False)
            except Poisoned:
                continue
    for item in file.items:
        match item:
            case Param():
                _define(found.params, item, "parameter", messages)
            case Define():
                _define(found.defines, item, "define", messages)
                names: dict[str, Parameter] = {}
                for parameter in item.parameters:
                    _define(names, parameter, "parameter", messages)
                if item.name.text in found.networks:
                    _twice("name", item, found.networks[item.name.text], messages)
            case Network() if main:
                _define(found.networks, item, "network", messages)
                if item.name.text in found.defines:
                    _twice("name", item, found.defines[item.name.text], messages)
    found.files.append(file)


def _define(table: dict, item, what: str, messages: Messages) -> None:
    if item.name.text in table:
        _twice(what, item, table[item.name.text], messages)
    else:
        table[item.name.text] = item


def _twice(what: str, item, first, messages: Messages) -> None:
    where = (Label(first.name.span, "first here"),)
    messages.error(
        "N202", f"the {what} `{item.name.text}` is defined twice", item.name.span, "again here", secondary=where
    )


class FileParams:
    """The `param`s of a program, evaluated when they are read, and what `--set` makes of them."""

    def __init__(self, definitions: Definitions, sets: Mapping[str, object], messages: Messages) -> None:
        self.declared = definitions.params
        self.sets = dict(sets)
        self.messages = messages
        self.unbound: set[str] = set()  # names that only `--set` binds
        self._values: dict[str, Arg | None] = {}
        self._open: list[str] = []
        self.defaults: dict[str, str | None] = {}  # expressions in terms of other parameters
        self.scope = Scope({}, self.read, tuple({**self.declared, **self.sets}))

    def read(self, ref: Ref) -> Arg:
        name = ref.name
        if name not in self._values:
            self._evaluate(name, ref)
        if self._values[name] is None:
            raise Poisoned
        return self._values[name]

    def _evaluate(self, name: str, ref: Ref) -> None:
        if name in self._open:
            cycle = " → ".join([*self._open[self._open.index(name) :], name])
            title = f"parameters define each other in a circle: {cycle}"
            raise self.messages.error(
                "N204", title, ref.span, "needs itself", hint="give one of them a value of its own"
            )
        if name in self.sets:
            self._values[name] = self._named(name, Arg.of(self.sets[name]))
            if name not in self.declared:
                self.unbound.add(name)
            return
        self._open.append(name)
        try:
            arg = evaluate(self.declared[name].value, Scope({}, self.read, tuple(self.declared)), self.messages)
            self.defaults[name] = arg.text if arg.text != repr(arg.value) else None
            self._values[name] = self._named(name, arg)
        except Poisoned:
            self._values[name] = None
        finally:
            self._open.pop()

    def _named(self, name: str, arg: Arg) -> Arg:
        from neural.graph.evaluate import identifier

        return Arg(arg.value, identifier(name), identifier(name))

    def evaluate_all(self) -> None:
        """Tell the mistakes of parameters that nothing reads, too."""
        for name, param in self.declared.items():
            try:
                self.read(Ref(name, True, param.name.span))
            except Poisoned:
                continue

    def check_sets(self, used: set[str]) -> None:
        """A name that is set must be a parameter, or be used by the file and left unbound."""
        for name in self.sets:
            if name not in self.declared and name not in used:
                near = meant(name, self.declared)
                known = ", ".join(self.declared)
                hint = f"did you mean `{near}`?" if near else f"it has {known}" if known else "it has none"
                self.messages.error("N205", f"`--set {name}=…`: the program has no parameter `{name}`", None, hint=hint)
