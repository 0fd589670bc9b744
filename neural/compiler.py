"""The pipeline on one page: parse, lower, verify, emit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path

from neural.diagnostics.diagnostic import Diagnostic, NeuralError
from neural.diagnostics.near import nearest
from neural.diagnostics.source import Source, Span
from neural.graph.definitions import Definitions, FileParams, gather, read_source
from neural.graph.graph import Block, Network, Node, count_parameters
from neural.graph.messages import Messages, Poisoned
from neural.graph.network import lower_network
from neural.graph.optimization import require_portable
from neural.graph.passes import optimize
from neural.graph.settings import Scalar, Settings
from neural.graph.verify import verify
from neural.syntax import tree

# Mistakes that stand whatever else of a file could not be read. Others may come of a statement that is missing.
FIRM = ("N0", "N1", "N301", "N305", "N306", "N309", "N310", "N311", "N501", "N503", "N504", "N505", "N506", "N511")

BACKENDS = {
    "pytorch": "neural.backends.torch",
    "tensorflow": "neural.backends.keras",
    "keras": "neural.backends.keras",
    "jax": "neural.backends.jax",
}


@dataclass(frozen=True)
class Program:
    """A sound program: one network of one file, its parameters settled."""

    path: Path
    graph: Network
    messages: tuple[Diagnostic, ...]  # warnings and notes
    parameters: dict[str, object]
    definitions: Definitions
    execution: Mapping[str, Scalar] = field(default_factory=dict)  # what `executed` has put into that section

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def settings(self) -> Settings:
        return self.graph.settings

    @property
    def base(self) -> Path:
        """The folder that names of files in the program are relative to."""
        return self.path.parent

    @property
    def context(self) -> int | None:
        """The longest sequence of ids that the network reads."""
        return self.graph.context

    @property
    def vocab_size(self) -> int | None:
        """Of a language model."""
        return self.graph.vocab_size

    @property
    def parameter_count(self) -> int:
        return count_parameters(self.graph.block)

    def pretrained(self) -> tuple[tuple[str, str], ...]:
        """What starts from weights of a file: the prefix of the weights' names, "" for the network, and `weights=`."""
        whole = (("", _placed(self.settings.weights, self.base)),) if self.settings.weights else ()
        layers = ((path, _placed(node.weights_from, _folder(node))) for path, node in _named_weights(self.graph.block))
        return (*whole, *layers)

    def source(self, backend: str = "pytorch") -> str:
        """The network's source for a back end. NeuralError N843 for a training that only PyTorch has."""
        from importlib import import_module

        if backend != "pytorch":
            require_portable(self.settings, backend)
        return import_module(BACKENDS[backend]).emit(optimize(self.graph))

    def executed(self, **values: Scalar) -> Program:
        """The same program with these values in its `execution` section."""
        settings = replace(self.settings, execution=self.settings.execution | values)
        graph = replace(self.graph, settings=settings)
        return replace(self, graph=graph, execution={**self.execution, **values})

    def text(self, *, weights: bool = True) -> str:
        """The whole program as one file: imports written in, parameters as they are set, this network alone.

        weights: whether it still says where weights are, by absolute paths.
        """
        from neural.syntax.format import format_file

        settle = _with_whole_paths if weights else _without_weights
        return "\n".join(format_file(f) for f in _standalone(self, settle)).strip() + "\n"


def load(
    path: str | Path, sets: Mapping[str, object] | None = None, network: str | None = None, *, strict: bool = False
) -> Program:
    """Compile a file up to its graph. Raises NeuralError with all its mistakes."""
    messages = Messages(strict=strict)
    try:
        source = read_source(Path(path), messages)
    except Poisoned:
        raise NeuralError(*messages.errors) from None
    return compile_source(source, sets, network, strict=strict)


def compile_source(
    source: Source, sets: Mapping[str, object] | None = None, network: str | None = None, *, strict: bool = False
) -> Program:
    """The same for text. Names of files in it are relative to the folder of `source.name`."""
    messages = Messages(strict=strict)
    definitions = gather(source, messages)
    params = FileParams(definitions, sets or {}, messages)
    params.evaluate_all()
    chosen = _choose(definitions, network, messages)
    graphs = {
        n.name.text: lower_network(definitions, params, n, messages)
        for n in definitions.networks.values()
        if chosen in (None, n)
    }
    params.check_sets(params.unbound)
    if messages.errors:
        complete = all(file.complete for file in definitions.files)
        raise NeuralError(*(d for d in messages.all if complete or d.code.startswith(FIRM)))
    graph = verify(graphs[chosen.name.text])
    verify(optimize(graph))
    values = {
        name: params.read(tree.Ref(name, True, None)).value for name in (*definitions.params, *sorted(params.unbound))
    }
    return Program(Path(source.name), graph, messages.all, values, definitions)


def _choose(definitions: Definitions, name: str | None, messages: Messages) -> tree.Network | None:
    """The network that is meant; None after a mistake, and then all are checked."""
    names = list(definitions.networks)
    if name is not None and name not in names:
        near = nearest(name, names)
        messages.error(
            "N007",
            f"there is no network `{name}`",
            None,
            hint=f"did you mean `{near}`?" if near else f"the file has {', '.join(names) or 'none'}",
        )
    elif name is None and len(names) > 1:
        messages.error(
            "N008",
            f"the file has {len(names)} networks",
            None,
            hint=f"choose one: --network {names[0]} (or {', '.join(names[1:])})",
        )
    elif not names and not messages.errors:
        imported = [i for f in definitions.files for i in f.items if isinstance(i, tree.Network)]
        hint = (
            "a network is not imported: name the file that it stands in"
            if imported
            else "write `network Name { input: (…) layers: … }`"
        )
        messages.error("N009", "the file has no network", None, hint=hint)
    else:
        return definitions.networks[name or names[0]] if names else None
    return None


def _placed(weights: str, folder: Path) -> str:
    """`weights="…"` for a reader in any folder."""
    return weights if weights.startswith("hf:") else str(folder / weights)


def _folder(node: Node) -> Path:
    """The folder that names of files in a statement are relative to."""
    return Path(node.span.source.name).parent


def _named_weights(block: Block, prefix: str = "") -> Iterator[tuple[str, Node]]:
    for node in block.nodes:
        if node.weights_from is not None:
            yield prefix + node.name, node
        if isinstance(node.layer, Block):
            for i in range(node.copies):
                inner = f"{prefix}{node.name}." + (f"{i}." if node.repeat is not None else "")
                yield from _named_weights(node.layer, inner)


def _standalone(program: Program, settle: Callable):
    """The files with imports left out, `param`s as they were set and other networks dropped."""
    declared = program.definitions.params
    extra = [n for n in program.parameters if n not in declared]
    for i, file in enumerate(program.definitions.files):
        items = []
        for item in file.items:
            if isinstance(item, tree.Param):
                items.append(replace(item, value=_literal(program.parameters[item.name.text], item.value)))
            elif isinstance(item, tree.Define) or (isinstance(item, tree.Network) and item.name.text == program.name):
                items.append(_with_execution(settle(item), program.execution))
        if i == 0:
            place = file.items[0].span if file.items else None
            added = [tree.Param(tree.Name(n, place), tree.Literal(program.parameters[n], place), place) for n in extra]
            items = [*added, *items]
        yield tree.File(file.source, tuple(items), ())


def _literal(value, written: tree.Expr) -> tree.Expr:
    """The expression as written, or the value that `--set` gave in its place."""
    if isinstance(written, tree.Literal) and written.value == value and type(written.value) is type(value):
        return written
    if isinstance(value, tuple):
        return tree.Sequence("tuple", tuple(_literal(v, written) for v in value), written.span)
    return tree.Literal(value, written.span)


def _with_execution(item, values: Mapping[str, Scalar]):
    """A network with these values in its `execution` section; anything else as it is."""
    if not values or not isinstance(item, tree.Network):
        return item
    at = item.name.span
    added = [tree.Entry(tree.Name(n, at), tree.Literal(v, at), at) for n, v in values.items()]
    there = next((s for s in item.sections if s.key.text == "execution"), None)
    kept = [e for e in there.value.entries if e.key.text not in values] if there else []
    section = tree.Section(tree.Name("execution", at), tree.Map((*kept, *added), at), at)
    return replace(item, sections=(*(s for s in item.sections if s is not there), section))


def _with_whole_paths(item):
    """`weights="…"` by its absolute name, so that the text means the same in any folder."""
    if isinstance(item, tuple):
        return tuple(_with_whole_paths(i) for i in item)
    if _says_weights(item):
        path = _placed(item.value.value, Path(item.span.source.name).parent.resolve())
        return replace(item, value=replace(item.value, value=path))
    if is_dataclass(item) and not isinstance(item, Span):
        return replace(item, **{f.name: _with_whole_paths(getattr(item, f.name)) for f in fields(item)})
    return item


def _without_weights(item):
    """The same without any `weights=`."""
    if isinstance(item, tuple):
        return tuple(_without_weights(i) for i in item if not _says_weights(i))
    if is_dataclass(item) and not isinstance(item, Span):
        return replace(item, **{f.name: _without_weights(getattr(item, f.name)) for f in fields(item)})
    return item


def _says_weights(item) -> bool:
    name = item.name if isinstance(item, tree.Argument) else item.key if isinstance(item, tree.Section) else None
    return name is not None and name.text == "weights"
