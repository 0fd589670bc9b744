"""What only the class of a whole network has: inputs, effects, initial weights, cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neural.backends.use import docstring, example_inputs, main_block, outcome, padding, probabilities
from neural.backends.writer import drawn
from neural.graph.graph import Network, primitives
from neural.graph.head import head
from neural.graph.residuals import additions, indexed_within, residual_suffixes

if TYPE_CHECKING:
    from neural.backends.torch import TorchWriter

GPT2_INIT = '''
def init_weights(module: nn.Module) -> None:
    """GPT-2's: matrices and tables with a standard deviation of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
'''

GLOROT_INIT = '''
def init_weights(module: nn.Module) -> None:
    """Keras': matrices uniform after Glorot and Bengio 2010, tables uniform, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -0.05, 0.05)
'''

CHECKPOINTED = '''
def checkpointed(block: nn.Module, *given: object) -> Tensor:
    """The output of a block, whose activations the backward pass computes again."""
    if not block.training:
        return block(*given)
    return checkpoint(block, *given, use_reentrant=False)
'''

KV_CACHE = '''
class KVCache:
    """Keys and values of the tokens seen so far, a pair for each attention layer.

    `past_key_values` takes any object like this one: with `length`, the number of tokens
    that it holds, and `update`.
    """

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        return self.layers[0][0].size(-2) if self.layers else 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values, (B, heads, T, head_dim); return all of the layer's."""
        if layer in self.layers:
            old_k, old_v = self.layers[layer]
            k, v = torch.cat((old_k, k), dim=-2), torch.cat((old_v, v), dim=-2)
        self.layers[layer] = k, v
        return k, v
'''


def constructor_end(writer: TorchWriter) -> list[str]:
    """The context, and the weights to start from."""
    network = writer.module.network
    lines = [f"self.context = {network.block.inputs[0].shape[1].text}"] if network.context else []
    if not any(p.node.layer.weights(*p.inputs) for p in primitives(network.block, once=True)):
        return lines
    writer.module.helpers[GPT2_INIT if network.init == "gpt2" else GLOROT_INIT] = None
    lines.append("self.apply(init_weights)")
    count = additions(network.block)
    suffixes = residual_suffixes(network.block)
    if network.init == "gpt2" and count is not None and suffixes:
        names = ", ".join(f'"{s}"' for s in suffixes)
        name = 're.sub(r"\\.\\d+", "", name)' if indexed_within(network.block, suffixes) else "name"
        lines += [
            "for name, weight in self.named_parameters():",
            f"    if {name}.endswith({names if len(suffixes) == 1 else f'({names})'}):  # into the residual stream",
            f"        nn.init.normal_(weight, std=0.02 / math.sqrt({count.text}))",
        ]
    return lines


def forward(writer: TorchWriter, effects: list[str]) -> list[str]:
    """The method, with its signature and docstring; before it, where there is a head, what the head reads."""
    network, block = writer.module.network, writer.block
    given = [f"{v.name}: Tensor" for v in block.inputs]
    text = "\n".join([*effects, *(writer.hidden or []), *writer.forward])
    if re.search(r"\battention_mask\b", text):
        given.append("attention_mask: Tensor | None = None")
    if network.cached:
        given.append("past_key_values: KVCache | None = None")
        given.append("position_ids: Tensor | None = None")
    if writer.hidden is None:
        end = _end(writer)
        body, methods = [*_start(writer, text), *effects, *writer.forward, *end], []
    else:
        methods = [*_hidden_states(writer, given, [*_start(writer, text), *effects, *writer.hidden]), ""]
        body = _head(writer, given)
    if "logits_to_keep" in "\n".join(body):
        given.append("logits_to_keep: int = 0")
    kind = "Tensor | tuple[Tensor, KVCache]" if network.cached else "Tensor"
    methods += [f"    def forward(self, {', '.join(given)}) -> {kind}:", *_docstring(writer, given)]
    methods += [f"        {line}" for line in body]
    if network.activation:
        methods += _probabilities(writer, given)
    return methods


def _start(writer: TorchWriter, body: str) -> list[str]:
    network = writer.module.network
    name = network.sequence or writer.block.inputs[0].name
    needed = network.context or re.search(r"\bT\b", re.sub("#.*", "", body))
    lines = [f"T = {name}.size(1)"] if needed else []
    if network.cached:
        lines.append("past = 0 if past_key_values is None else past_key_values.length")
    if network.context:
        total = "past + T" if network.cached else "T"
        lines.append(f"if self.context < {total}:")
        lines.append(f'    raise ValueError(f"{{{total}}} tokens, and the context has {{self.context}}")')
    return lines


def _hidden_states(writer: TorchWriter, given: list[str], body: list[str]) -> list[str]:
    """The method that gives what the head reads."""
    node = head(writer.module.network)
    x, shape = writer.variables[node.inputs[0]], drawn(writer.values[node.inputs[0]].shape)
    *before, last = body
    end = [f"return {last.removeprefix(f'{x} = ')}"] if last.startswith(f"{x} = ") else [last, f"return {x}"]
    return [
        f"    def hidden_states(self, {', '.join(given)}) -> Tensor:",
        f'        """What {node.name} reads, {shape}. The arguments are those of `forward`."""',
        *(f"        {line}" for line in (*before, *end)),
    ]


def _head(writer: TorchWriter, given: list[str]) -> list[str]:
    """The forward pass: logits of the hidden states."""
    x = writer.variables[head(writer.module.network).inputs[0]]
    lines = [f"{x} = self.hidden_states({', '.join(g.split(':')[0] for g in given)})"]
    if writer.module.network.cached:
        lines.append(f"{x} = {x}[:, -logits_to_keep:]")
    end = _end(writer)
    return [*lines, *writer.forward, *end]


def _end(writer: TorchWriter) -> list[str]:
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
    return [
        f"return {name} if past_key_values is None else ({name}, past_key_values)"
        if writer.module.network.cached
        else f"return {name}"
    ]


def _docstring(writer: TorchWriter, given: list[str]) -> list[str]:
    network = writer.module.network
    masked = any(g.startswith("attention_mask") for g in given)
    takes = [padding(network)] if masked else []
    if network.cached:
        takes.append("past_key_values: a KVCache, or any object with its `length` and `update`. It is")
        takes.append(f"    written to, and returned behind {outcome(network)}.")
        takes.append("position_ids: int64 (B, T), where the tokens stand; by default after the past.")
        if given[-1].startswith("logits_to_keep"):
            takes.append("logits_to_keep: logits of so many of the last tokens only; 0 for all.")
    return docstring(writer, takes)


def _probabilities(writer: TorchWriter, given: list[str]) -> list[str]:
    rest = [g for g in given if not g.startswith(("past_key_values", "position_ids", "logits_to_keep"))]
    names = ", ".join(g.split(":")[0] for g in rest)
    axis = "dim=-1" if writer.module.network.activation == "softmax" else ""
    return probabilities(writer, f"{', '.join(rest)}) -> Tensor", f"self({names}).{{}}({axis})")


def main_lines(network: Network) -> str:
    """What the module does when it is run by itself."""
    given = example_inputs(network, "torch.randint({rows}, (1, {length}))", "torch.randn(2, {sizes})")
    lines = [
        f"model = {network.name}().eval()",
        "size = sum(p.numel() for p in model.parameters())",
        *(f"{name} = {made}" for name, made in given.items()),
        "with torch.no_grad():",
        f"    output = model({', '.join(given)})",
    ]
    return main_block(network, lines, given, "{{tuple({}.shape)}}")
