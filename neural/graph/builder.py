"""A block while its nodes are added."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import prod

from neural.diagnostics.source import Span
from neural.graph.evaluate import identifier
from neural.graph.graph import Block, Node, Param, Tie
from neural.layers.arguments import LARGEST
from neural.layers.layer import Layer, Mismatch
from neural.layers.values import Arg, Shape, Value

_SHORT = {"multi_head_attention": "attention"}

# Attributes that torch.nn.Module and flax.nnx.Module have of their own, and those that the source gives a network.
MODULE_ATTRIBUTES = {
    "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu", "cuda", "double",
    "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_parameter", "get_submodule",
    "half", "ipu", "load_state_dict", "modules", "mtia", "named_buffers", "named_children", "named_modules",
    "named_parameters", "parameters", "probabilities", "register_buffer", "register_module", "register_parameter",
    "requires_grad_", "share_memory", "state_dict", "to", "to_empty", "train", "training", "type", "xpu",
    "zero_grad", "context", "layer", "init_cache", "iter_children", "iter_modules", "kv_shapes", "perturb",
    "set_attributes", "sow",
}  # fmt: skip


def snake(name: str) -> str:
    """LayerNormalization → layer_norm, GptBlock → gpt_block."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return _SHORT.get(name, name.replace("normalization", "norm"))


class BlockBuilder:
    """Collects nodes. `finish` settles names that the author did not give: by then it is known how many are alike."""

    def __init__(self, inputs: tuple[Value, ...]) -> None:
        self.inputs = inputs
        self.nodes: list[Node] = []
        self.ties: list[Tie] = []
        self._bases: dict[str, str] = {}  # provisional name → what it is an instance of
        self.given: set[str] = set()  # names by the author

    def add(
        self,
        layer: Layer | Block,
        inputs: tuple[Value, ...],
        *,
        name: str | None = None,
        kind: str,
        span: Span | None = None,
        repeat: Arg | None = None,
        arguments: tuple[tuple[str, Arg], ...] = (),
        weights_from: str | None = None,
    ) -> Node:
        """Append a node; its shapes are settled here. Raises Mismatch."""
        if name is not None:
            name = self._own(name)
        else:
            name = f"%{len(self.nodes)}"
            self._bases[name] = snake(kind)
        if isinstance(layer, Block):
            out = layer.value(layer.outputs[0])
            shapes, dtype = (outward(out.shape, inputs, arguments),), out.dtype
        else:
            shapes, dtype = layer.shape(*inputs), layer.dtype(*inputs)
            _countable(layer, inputs, shapes)
        outputs = tuple(Value(name if len(shapes) == 1 else f"{name}.{i}", s, dtype) for i, s in enumerate(shapes))
        node = Node(
            layer,
            name,
            tuple(v.name for v in inputs),
            outputs,
            span,
            repeat,
            arguments,
            weights_from,
            not name.startswith("%"),
        )
        self.nodes.append(node)
        return node

    def _own(self, name: str) -> str:
        name = identifier(name)
        while name in MODULE_ATTRIBUTES or name in self.given or any(name == v.name for v in self.inputs):
            name += "_"
        self.given.add(name)
        return name

    def repeat(self, node: Node, count: Arg) -> Node:
        """The node with a number of copies."""
        again = replace(node, repeat=count)
        self.nodes[self.nodes.index(node)] = again
        return again

    def finish(self, name: str, params: tuple[Param, ...], output: Value) -> Block:
        """The block, with every name settled."""
        counts = Counter(self._bases.values())
        taken, numbers, final = set(self.given) | {v.name for v in self.inputs}, Counter(), {}
        for node in self.nodes:
            if node.name not in self._bases:
                continue
            base = self._bases[node.name]
            plural = _plural(base) if node.repeat is not None else base
            candidate = plural
            while (
                candidate in taken
                or candidate in MODULE_ATTRIBUTES
                or candidate != identifier(candidate)
                or (counts[base] > 1 and candidate == plural)
            ):
                numbers[plural] += 1
                candidate = f"{plural}_{numbers[plural]}"
            taken.add(candidate)
            final[node.name] = candidate
        nodes = tuple(self._renamed(node, final) for node in self.nodes)
        ties = tuple(Tie(final.get(t.target, t.target), final.get(t.source, t.source), t.transposed) for t in self.ties)
        return Block(name, params, self.inputs, nodes, (_rename(output.name, final),), ties)

    def _renamed(self, node: Node, final: dict[str, str]) -> Node:
        inputs = tuple(_rename(i, final) for i in node.inputs)
        outputs = tuple(v._replace(name=_rename(v.name, final)) for v in node.outputs)
        return replace(node, name=_rename(node.name, final), inputs=inputs, outputs=outputs)


def _countable(layer: Layer, inputs: tuple[Value, ...], shapes: tuple[Shape, ...]) -> None:
    """Raises Mismatch for a result or a weight, of 4 bytes a number, with more bytes than 64 bits count."""
    results = [tuple(a.value for a in shape if a.value is not None) for shape in shapes]
    for sizes in (*results, *(w.shape for w in layer.weights(*inputs))):
        if 4 * prod(sizes) > LARGEST:
            title = f"{' × '.join(map(str, sizes))} numbers have more bytes than 64 bits can count"
            raise Mismatch("N412", title, hint="make it smaller")


def _plural(name: str) -> str:
    """Of a list of layers: blocks, bodies, branches."""
    if name.endswith("y") and name[-2:-1] not in ("", *"aeiou_"):
        return f"{name[:-1]}ies"
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def _rename(name: str, final: dict[str, str]) -> str:
    head, dot, tail = name.partition(".")
    return final.get(head, head) + dot + tail


def outward(
    shape: tuple[Arg, ...], inputs: tuple[Value, ...], arguments: tuple[tuple[str, Arg], ...]
) -> tuple[Arg, ...]:
    """A shape of a block in its caller's terms: by the argument or the input that has the value, else by its root."""
    known = {arg.value: arg for _, arg in reversed(arguments) if isinstance(arg.value, int)}
    known |= {a.value: a for v in inputs for a in v.shape if not a.axis}
    return tuple(
        a if a.axis or a.value not in known else known[a.value]
        for a in (x if x.axis else x.named(x.root) for x in shape)
    )
