"""What only the model has: inputs, effects, initial weights, training, cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neural.backends.keras_training import compile_lines, default_steps, needs_steps
from neural.backends.use import docstring, example_inputs, main_block, outcome, padding, probabilities
from neural.graph.graph import Network
from neural.graph.residuals import additions, indexed_within, residual_suffixes

if TYPE_CHECKING:
    from neural.backends.keras import KerasWriter

CHECKPOINTED = '''
def checkpointed(block, x, asked, **given):
    """The block of x; where asked, with activations that the backward pass computes again.

    Its state goes in and out, so that dropout draws the same numbers both times.
    """
    if not asked:
        return block(x, **given)
    weights = [v.value for v in block.trainable_variables]
    state = [ops.copy(v) for v in block.non_trainable_variables]

    def again(x):
        return block.stateless_call(weights, state, x, **given)

    x, moved = keras.remat(again)(x)
    for variable, value in zip(block.non_trainable_variables, moved, strict=True):
        variable.assign(value)
    return x
'''

KV_CACHE = '''
class KVCache:
    """Keys and values of up to `size` tokens, a pair for each attention layer.

    The tensors keep one shape, (B, size, heads, head_dim), so that a compiled step is
    compiled once: give it `layers` and `length`, and take them back from it.
    """

    def __init__(self, size, layers=(), length=0):
        self.size = size
        self.layers = list(layers)
        self.length = length  # how many tokens it holds

    def update(self, layer, k, v):
        """Keep new keys and values, (B, T, heads, head_dim); return all of the layer's."""
        total = self.length + ops.shape(k)[1]
        if isinstance(total, int) and total > self.size:
            raise ValueError(f"{total} tokens, and the cache holds {self.size}")
        if layer == len(self.layers):
            shape = (ops.shape(k)[0], self.size, *k.shape[2:])
            self.layers.append((ops.zeros(shape, k.dtype), ops.zeros(shape, v.dtype)))
        start = (0, self.length, 0, 0)
        old_k, old_v = self.layers[layer]
        k, v = ops.slice_update(old_k, start, k), ops.slice_update(old_v, start, v)
        self.layers[layer] = k, v
        return k, v
'''


def constructor_end(writer: KerasWriter) -> list[str]:
    """The context, weights to start from, and how it trains."""
    network = writer.module.network
    steps = steps_argument(writer)
    lines = [f"self.{steps} = {steps}"] if steps else []
    if own_context(network, writer.root):
        lines.append(f"self.context = {network.block.inputs[0].shape[1].text}")
    if writer.builds:
        lines.append(f"self.build({_input_shape(writer)})")
        lines += _gpt2_init(writer) if network.init == "gpt2" else []
    return [*lines, *compile_lines(network, steps or "")]


def own_context(network: Network, root: bool) -> bool:
    """Whether the model keeps its context under that name, and not for being a parameter called so."""
    return root and network.context is not None and network.block.inputs[0].shape[1].text != "context"


def _input_shape(writer: KerasWriter) -> str:
    shapes = {v.name: f"({', '.join('None' if a.axis else a.text for a in v.shape)})" for v in writer.block.inputs}
    shapes = {n: s.replace("(None)", "(None,)") for n, s in shapes.items()}
    if len(shapes) == 1:
        return next(iter(shapes.values()))
    return "{" + ", ".join(f'"{n}": {s}' for n, s in shapes.items()) + "}"


def _gpt2_init(writer: KerasWriter) -> list[str]:
    """GPT-2's initial weights; Keras' own are Glorot's."""
    network = writer.module.network
    count, suffixes = additions(network.block), residual_suffixes(network.block)
    deviation = "0.02"
    lines = []
    if count is not None and suffixes:
        written = [s.removesuffix(".weight").replace(".", "/") + "/kernel" for s in suffixes]
        if indexed_within(network.block, suffixes):
            repeated = _repeated(network)
            ends = "|".join(
                "/".join(rf"{p}(_\d+)?" if p in repeated else re.escape(p) for p in w.split("/")) for w in written
            )
            found = f're.search(r"({ends})$", weight.path)'
        else:
            names = ", ".join(f'"{w}"' for w in written)
            found = f"weight.path.endswith({names if len(written) == 1 else f'({names})'})"
        lines = [f"        if {found}:  # into the residual stream", f"            std /= math.sqrt({count.text})"]
    return [
        "for weight in self.trainable_weights:  # as GPT-2's; biases are 0",
        '    if weight.name in ("embeddings", "kernel"):',
        f"        std = {deviation}",
        *lines,
        "        weight.assign(keras.random.normal(weight.shape, stddev=std))",
    ]


def _repeated(network: Network) -> set[str]:
    """The names of nodes that stand several times."""
    found, blocks = set(), [network.block]
    while blocks:
        for node in blocks.pop().nodes:
            if node.repeat is not None:
                found.add(node.name)
            if hasattr(node.layer, "nodes"):
                blocks.append(node.layer)
    return found


# The length of the training, where the file does not give it


def steps_argument(writer: KerasWriter) -> str | None:
    """The constructor's name for it."""
    if not writer.root or not needs_steps(writer.module.network.settings):
        return None
    taken = {p.name for p in writer.block.params} | {n.name for n in writer.block.nodes}
    return next(n for n in ("steps", "training_steps", "steps_of_training") if n not in taken)


def constructor_docstring(writer: KerasWriter) -> list[str]:
    name = steps_argument(writer)
    return [f'        """{name}: of the whole training, over which the learning rate falls."""'] if name else []


def extra_parameters(writer: KerasWriter) -> list[str]:
    name = steps_argument(writer)
    return [f"{name}={default_steps(writer.module.network.settings)}"] if name else []


# The forward pass


def forward(writer: KerasWriter, effects: list[str]) -> list[str]:
    """`call`, with its signature and docstring, and `probabilities`."""
    network, names = writer.module.network, [v.name for v in writer.block.inputs]
    body = [*effects, *writer.forward]
    end = _end(writer, body)
    text = "\n".join([*body, *end])
    masked = re.search(r"\battention_mask\b", text) is not None
    given = [names[0] if len(names) == 1 else "inputs"]
    given += ["attention_mask=None"] if masked else []
    probabilities = _probabilities(writer, given) if network.activation else []
    given += ["past_key_values=None"] if network.cached else []
    lines = [f"    def call(self, {', '.join([*given, *writer.training()])}):", *_docstring(writer, masked)]
    lines += [f"        {line}" for line in (*_start(writer, text, masked), *body, *end)]
    return [*lines, *probabilities]


def _start(writer: KerasWriter, body: str, masked: bool) -> list[str]:
    network, names = writer.module.network, [v.name for v in writer.block.inputs]
    lines = []
    if len(names) > 1:
        lines.append(", ".join(names) + " = " + ", ".join(f'inputs["{n}"]' for n in names))
    elif masked and not network.cached:
        lines.append(f"if isinstance({names[0]}, dict):")
        lines.append(f'    attention_mask = {names[0]}["attention_mask"]')
        lines.append(f'    {names[0]} = {names[0]}["{names[0]}"]')
    sequence = network.sequence or names[0]
    if network.context or re.search(r"\bT\b", re.sub("#.*", "", body)):
        lines.append(f"T = ops.shape({sequence})[1]")
    if network.cached:
        lines.append("past = 0 if past_key_values is None else past_key_values.length")
    if network.context:
        total = "past + T" if network.cached else "T"
        lines.append(f"if isinstance({total}, int) and self.context < {total}:")
        lines.append(f'    raise ValueError(f"{{{total}}} tokens, and the context has {{self.context}}")')
    return lines


def _end(writer: KerasWriter, body: list[str]) -> list[str]:
    """What returns the result. Takes the last line of the body where it can."""
    network = writer.module.network
    result = writer.variables[writer.block.outputs[0]]
    last = body[-1] if body else ""
    expression = last.removeprefix(f"{result} = ") if last.startswith(f"{result} = ") else None
    if not network.cached:
        if expression is None:
            return [f"return {result}"]
        body.pop()
        return [f"return {expression}"]
    if expression is not None:
        result = "logits" if network.activation else result
        body[-1] = f"{result} = {expression}"
    return [
        "if past_key_values is None:",
        f"    return {result}",
        "past_key_values.length = past + T",
        f"return {result}, past_key_values",
    ]


def _docstring(writer: KerasWriter, masked: bool) -> list[str]:
    network, names = writer.module.network, [v.name for v in writer.block.inputs]
    takes = ["inputs: a dict of them by name."] if len(names) > 1 else []
    if masked:
        takes.append(padding(network))
        if not network.cached and len(names) == 1:
            takes.append(f'    `fit` hands it over in a dict: {{"{names[0]}": …, "attention_mask": …}}.')
    if network.cached:
        takes.append(f"past_key_values: a KVCache, which is written to, and returned behind {outcome(network)}.")
    if writer.training():
        takes.append("training: whether dropout and the like are on, here and in the layers within.")
    return docstring(writer, takes)


def _probabilities(writer: KerasWriter, given: list[str]) -> list[str]:
    names = [g.partition("=")[0] for g in given]
    passed = ", ".join([names[0], *(f"{n}={n}" for n in names[1:])])
    return probabilities(writer, f"{', '.join(given)})", f"ops.{{}}(self({passed}))")


def main_lines(network: Network) -> str:
    """What the module does when it is run by itself."""
    ids, numbers = "keras.random.randint((1, {length}), 0, {rows})", "keras.random.normal((2, {sizes}))"
    given = example_inputs(network, ids, numbers)
    batch = ", ".join(given) if len(given) == 1 else "{" + ", ".join(f'"{n}": {n}' for n in given) + "}"
    lines = [
        f"model = {network.name}()",
        "size = sum(math.prod(weight.shape) for weight in model.trainable_weights)",
        *(f"{name} = {made}" for name, made in given.items()),
        f"output = model({batch})",
    ]
    return main_block(network, lines, given, "{{tuple({}.shape)}}")
