"""What only the class of a whole network has in JAX: inputs, effects, initial weights, cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neural.backends.use import docstring, example_inputs, main_block, outcome, padding, probabilities
from neural.graph.graph import Block, Network, Node
from neural.graph.residuals import additions, residual_suffixes
from neural.layers.attention import Attention
from neural.layers.layer import width
from neural.layers.values import operand

if TYPE_CHECKING:
    from neural.backends.writer import ClassWriter

GPT2_INIT = """
# GPT-2's matrices and tables begin with a standard deviation of 0.02, biases with 0.
normal_init = nnx.initializers.normal(0.02)
"""

GLOROT_INIT = """
# Keras' matrices begin uniform after Glorot and Bengio 2010, biases with 0.
glorot_init = nnx.initializers.glorot_uniform()
"""

TABLE_INIT = '''
def table_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """How Keras' tables begin."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)
'''

INITIALIZERS = {  # by the network's kind of start, and what is drawn
    ("gpt2", "matrix"): ("normal_init", GPT2_INIT),
    ("gpt2", "table"): ("normal_init", GPT2_INIT),
    ("glorot", "matrix"): ("glorot_init", GLOROT_INIT),
    ("glorot", "table"): ("table_init", TABLE_INIT),
}

CHECKPOINTED = '''
def checkpointed(block: nnx.Module, *given: object) -> Array:
    """The output of a block, whose activations the backward pass computes again."""
    return nnx.remat(type(block).__call__)(block, *given)
'''

CHECKPOINTED_UNLESS_CACHED = '''
def checkpointed(block: nnx.Module, *given: object) -> Array:
    """The output of a block, whose activations the backward pass computes again."""
    if any(isinstance(g, KVCache) for g in given):
        return block(*given)  # nothing goes backward here, and the block writes into it
    return nnx.remat(type(block).__call__)(block, *given)
'''

KV_CACHE = '''
@jax.tree_util.register_dataclass
@dataclass
class KVCache:
    """Keys and values of the tokens seen so far, a pair for each attention layer.

    Its shapes do not change as it fills, so a jitted step is compiled once.
    """

    keys: list[Array]  # (B, max_length, heads, head_dim) each
    values: list[Array]
    length: Array  # how many tokens it holds, int32 ()

    @property
    def max_length(self) -> int:
        return self.keys[0].shape[1]

    def extended(self, T: int) -> "KVCache":
        """A copy with T tokens more, whose keys and values `update` writes.

        ValueError where there is no room for them. A jitted caller has to count for
        itself: the length is not known while it is traced.
        """
        length = self.length + T
        if not isinstance(length, jax.core.Tracer) and length > self.max_length:
            raise ValueError(f"{length} tokens, and the cache holds {self.max_length}")
        return KVCache(list(self.keys), list(self.values), length)

    def update(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Keep new keys and values, (B, T, heads, head_dim); return all of the layer's."""
        start = (0, self.length - k.shape[1], 0, 0)
        self.keys[layer] = jax.lax.dynamic_update_slice(self.keys[layer], k, start)
        self.values[layer] = jax.lax.dynamic_update_slice(self.values[layer], v, start)
        return self.keys[layer], self.values[layer]
'''

INIT_CACHE = '''
def init_cache(
    self, batch_size: int, max_length: int, dtype: jnp.dtype = jnp.float32
) -> KVCache:
    """An empty cache for a number of sequences of up to max_length tokens."""
    if self.context < max_length:
        raise ValueError(f"{max_length} tokens, and the context has {self.context}")
    shapes = [(batch_size, max_length, *shape) for shape in self.kv_shapes]
    keys, values = ([jnp.zeros(s, dtype) for s in shapes] for _ in range(2))
    return KVCache(keys, values, jnp.zeros((), jnp.int32))
'''


def constructor_end(writer: ClassWriter) -> list[str]:
    """The context, the shapes of the cache, and the smaller start of what goes into the residual stream."""
    network = writer.module.network
    lines = [f"self.context = {network.block.inputs[0].shape[1].text}"] if network.context else []
    if network.cached:
        lines.append(f"self.kv_shapes = {_kv_shapes(network.block)}  # heads, head_dim")
    count = additions(network.block)
    suffixes = [s.removesuffix(".weight") for s in residual_suffixes(network.block)]
    if network.init == "gpt2" and count is not None and suffixes:
        ends = (
            f'"{suffixes[0]}"' if len(suffixes) == 1 else f"({', '.join(f'{chr(34)}{s}{chr(34)}' for s in suffixes)})"
        )
        lines += [
            "for path, module in nnx.iter_modules(self):",
            '    name = ".".join(part for part in path if isinstance(part, str))',
            f"    if name.endswith({ends}):  # into the residual stream",
            f"        module.kernel[...] /= math.sqrt({count.text})",
        ]
    return lines


def _kv_shapes(block: Block) -> str:
    """A tuple with (heads, head_dim) of each attention, as an expression in the network's terms."""
    values, parts = block.values(), []
    for node in block.nodes:
        if isinstance(node.layer, Block):
            inner = _kv_shapes(node.layer)
            part = inner and _repeated(inner, node)
        elif isinstance(node.layer, Attention):
            head_dim = width(values[node.inputs[0]]).over(node.layer.num_heads)
            part = f"(({node.layer.kv_heads.root}, {head_dim.root}),)"
        else:
            continue
        if part:
            parts.append(part)
    return " + ".join(parts)


def _repeated(shapes: str, node: Node) -> str:
    if node.repeat is None:
        return shapes
    return f"{operand(shapes)} * {operand(node.repeat.root)}"


def forward(writer: ClassWriter, effects: list[str]) -> list[str]:
    """The method, with its signature and docstring, and what stands behind it."""
    network, block = writer.module.network, writer.block
    end = _end(writer)
    body = [*effects, *writer.forward, *end]
    masked = re.search(r"\battention_mask\b", "\n".join(body)) is not None
    head = _start(writer, "\n".join(body), masked)
    inputs = [v.name for v in block.inputs]
    given = [f"{name}: Array" for name in inputs]
    given += ["attention_mask: Array | None = None"] if masked else []
    probabilities = _probabilities(writer, given, inputs + ["attention_mask"] * masked) if network.activation else []
    given += ["past_key_values: KVCache | None = None"] if network.cached else []
    kind = "Array | tuple[Array, KVCache]" if network.cached else "Array"
    method = [f"    def __call__(self, {', '.join(given)}) -> {kind}:", *_docstring(writer, masked)]
    method += [f"        {line}" for line in (*head, *body)]
    if network.cached:
        method += [f"    {line}".rstrip() for line in INIT_CACHE.rstrip().split("\n")]
    return method + probabilities


def _start(writer: ClassWriter, body: str, masked: bool) -> list[str]:
    network = writer.module.network
    name = network.sequence or writer.block.inputs[0].name
    needed = network.context or re.search(r"\bT\b", re.sub("#.*", "", body))
    lines = [f"T = {name}.shape[1]"] if needed else []
    if network.context:
        lines.append("if self.context < T:")
        lines.append('    raise ValueError(f"{T} tokens, and the context has {self.context}")')
    if network.cached:
        lines += [
            "cache, past, S = None, 0, T",
            "if past_key_values is not None:",
            "    cache = past_key_values.extended(T)",
            "    past, S = past_key_values.length, cache.max_length",
        ]
        if masked:
            room = "((0, 0), (0, S - attention_mask.shape[1]))"
            lines += [
                "    if attention_mask is not None:  # nothing yet behind the last token",
                f"        attention_mask = jnp.pad(attention_mask, {room})",
            ]
    return lines


def _end(writer: ClassWriter) -> list[str]:
    result = writer.variables[writer.block.outputs[0]]
    name = "logits" if writer.module.network.activation else result
    last = writer.forward[-1] if writer.forward else ""
    if last.startswith(f"{result} = "):
        expression = last.removeprefix(f"{result} = ")
        if not writer.module.network.cached:
            writer.forward.pop()
            return [f"return {expression}"]
        writer.forward[-1] = f"{name} = {expression}"
    else:
        name = result
    cached = writer.module.network.cached
    return [f"return {name} if cache is None else ({name}, cache)" if cached else f"return {name}"]


def _docstring(writer: ClassWriter, masked: bool) -> list[str]:
    network = writer.module.network
    takes = [padding(network)] if masked else []
    if masked and network.cached:
        takes.append("    With a cache it may be max_length wide, and so of one shape in all steps.")
    if network.cached:
        takes.append("past_key_values: from `init_cache` or the call before. It stays as it is; the")
        takes.append(f"    cache that follows is returned behind {outcome(network)}.")
    return docstring(writer, takes)


def _probabilities(writer: ClassWriter, given: list[str], names: list[str]) -> list[str]:
    return probabilities(writer, f"{', '.join(given)}) -> Array", f"nnx.{{}}(self({', '.join(names)}))")


def main_lines(network: Network) -> str:
    """What the module does when it is run by itself."""
    ids, numbers = "jax.random.randint(key, (1, {length}), 0, {rows})", "jax.random.normal(key, (2, {sizes}))"
    given = {
        name + "_" * (name in ("model", "size", "key", "output")): made
        for name, made in example_inputs(network, ids, numbers).items()
    }
    lines = [
        f"model = {network.name}(rngs=nnx.Rngs(0))",
        "model.eval()",
        "size = sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))",
        "key = jax.random.key(1)",
        *(f"{name} = {made}" for name, made in given.items()),
        f"output = model({', '.join(given)})",
    ]
    return main_block(network, lines, given, "{{{}.shape}}")
