"""What a graph is as a decoder: by the uses of its values and the kinds of its layers, never by names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NoReturn

from neural.diagnostics.diagnostic import Label, NeuralError, fail
from neural.graph.graph import Network, tied, weights
from neural.interop.decoder import Decoder, Recognized, Rotary
from neural.interop.flat import Flat, Step
from neural.layers.activation import Activation
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding, PositionalEmbedding
from neural.layers.layer import Layer
from neural.layers.merging import Add, Multiply
from neural.layers.normalization import LayerNormalization, Rescaling, RMSNormalization

NORMS = (LayerNormalization, RMSNormalization)
KNOWN = (
    "other formats know an Embedding, positions, blocks of Residual { norm, attention } and Residual { norm, MLP }, "
    "a norm and a head"
)


@dataclass
class _Facts:
    """What the blocks agree on, each with the step that said it first."""

    said: dict[str, tuple[object, Step]] = field(default_factory=dict)

    def say(self, step: Step, **facts: object) -> None:
        for name, value in facts.items():
            before, first = self.said.setdefault(name, (value, step))
            if before != value:
                words = name.replace("_", " ")
                _refuse(step, f"its {words} is {value}, and that of `{first.path}` is {before}: they must be equal")

    def __getitem__(self, name: str) -> object:
        return self.said[name][0]


class Structure:
    """Walks the residual stream from the ids to the logits and takes note of what stands in it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.flat = Flat(network.block)
        self.facts = _Facts()
        self.names: dict[str, str | tuple[str, ...]] = {}
        self.biases: set[str] = set()
        self.seen: set[Step] = set()

    def readable(self) -> dict[str, str | tuple[str, ...]]:
        """The pivot's names of our weights, as far as the stream goes before a part that has no equal."""
        with suppress(NeuralError):
            self.recognized()
        return self.names

    def recognized(self) -> Recognized:
        if len(self.network.block.inputs) != 1:
            inputs = ", ".join(f"`{v.name}`" for v in self.network.block.inputs)
            fail(
                "N860", f"{self.network.name} has several inputs, {inputs}: no decoder in other formats", notes=(KNOWN,)
            )
        table = self._only_reader(self.flat.input, Embedding, role="ids")
        self._name(table, "tokens")
        stream, scale, context = self._positions(table.outputs[0])
        layers = 0
        while any(isinstance(r.layer, Add) for r in self.flat.readers[stream]):
            stream = self._attention(stream, f"blocks.{layers}.")
            stream = self._mlp(stream, f"blocks.{layers}.")
            layers += 1
        norm = self._only_reader(stream, *NORMS, role="the last block's result" if layers else "the embedding")
        if not layers:
            _refuse(norm, "no block of attention and MLP stands before it")
        self._norm(norm, "norm")
        head = self._only_reader(norm.outputs[0], Dense, role="the last norm's result")
        self._head(head, table)
        for step in self.flat.steps:
            if step not in self.seen:
                _refuse(step, "it stands outside the stream of attentions and MLPs")
        return self._decoder(table, head, layers, scale, context)

    def _positions(self, stream: str) -> tuple[str, float | None, int]:
        """The stream with positions in it, the factor of the embedding, and the context."""
        scale, context, learned = None, self.network.context, None
        if any(isinstance(r.layer, Rescaling) for r in self.flat.readers[stream]):
            step = self._only_reader(stream, Rescaling, role="the embedding")
            stream, scale = self._take(step), float(step.layer.scale.value)
        if any(isinstance(r.layer, PositionalEmbedding) for r in self.flat.readers[stream]):
            step = self._only_reader(stream, PositionalEmbedding, role="the embedding")
            if step.layer.kind.value != "learned":
                _refuse(
                    step, "its positions are sinusoidal, and other formats hold a learned table or rotary positions"
                )
            self._name(step, "positions")
            stream, learned = step.outputs[0], step
            context = step.weights["weight"][0]
        self.learned = learned
        return stream, scale, context

    def _attention(self, stream: str, prefix: str) -> str:
        norm, add, x = self._residual(stream)
        readers = self.flat.readers[x]
        attentions = [r for s in readers for v in s.outputs for r in self.flat.readers[v]]
        step = next((a for a in (*readers, *attentions) if isinstance(a.layer, Attention)), None)
        if step is None:
            _refuse(readers[0] if readers else norm, "an attention is expected here: each block is attention, then MLP")
        self._norm(norm, f"{prefix}norm_1")
        self._projections(step, x, readers, prefix)
        self._heads(step, prefix)
        out = self._only_reader(step.outputs[0], Dense, role="the attention's result")
        self._name(out, f"{prefix}out")
        self._joins(out.outputs[0], add)
        return add.outputs[0]

    def _projections(self, attention: Step, x: str, readers: list[Step], prefix: str) -> None:
        if len(attention.inputs) != 3 or len(set(attention.inputs)) != 3:
            _refuse(attention, "its queries, keys and values are not projections of their own")
        makers = [self.flat.maker.get(v) for v in attention.inputs]
        for value, maker in zip(attention.inputs, makers, strict=True):
            if maker is None or not isinstance(maker.layer, Dense | Projections) or maker.inputs != (x,):
                _refuse(maker or attention, "queries, keys and values must be plain Dense layers of the norm's result")
            if self.flat.readers[value] != [attention]:
                _refuse(maker, "its result has another use beside the attention")
        if set(makers) != set(readers):
            _refuse(next(r for r in readers if r not in makers), "it reads the norm's result beside the attention")
        if isinstance(makers[0].layer, Projections):
            self._fused(makers[0], attention, prefix)
        else:
            for maker, part in zip(makers, "qkv", strict=True):
                self._name(maker, f"{prefix}{part}")
        self._take(attention)

    def _fused(self, projections: Step, attention: Step, prefix: str) -> None:
        if projections.outputs != attention.inputs:
            _refuse(projections, "it gives queries, keys and values in another order")
        for suffix in projections.weights:
            names = tuple(f"{prefix}{p}.{suffix}" for p in "qkv")
            self.names[f"{projections.path}.{suffix}"] = names
            if suffix == "bias":
                self.biases.add("qkv")
        self._take(projections)

    def _heads(self, step: Step, prefix: str) -> None:
        layer: Attention = step.layer
        if not layer.causal.value:
            _refuse(step, "it is not causal", hint="add `causal=true`")
        head_dim = step.widths[0] // layer.num_heads.value
        scale = layer.scale.value
        self.facts.say(
            step,
            heads=layer.num_heads.value,
            kv_heads=layer.kv_heads.value,
            head_dim=head_dim,
            rotary_positions=_rotary(layer),
            qk_norm=layer.qk_norm.value,
            scale=None if scale is None or scale == head_dim**-0.5 else float(scale),
            window=layer.window.value,
        )
        self.flat.dropouts.append(float(layer.dropout.value))
        for name in step.weights:
            self.names[f"{step.path}.{name}"] = prefix + name

    def _mlp(self, stream: str, prefix: str) -> str:
        norm, add, x = self._residual(stream)
        self._norm(norm, f"{prefix}norm_2")
        readers = self.flat.readers[x]
        for step in readers:
            if not isinstance(step.layer, Dense):
                _refuse(step, "a Dense is expected here: each block is attention, then MLP")
        middle = self._gated(readers, prefix) if len(readers) == 2 else self._plain(x, prefix)
        down = self._only_reader(middle, Dense, role="the MLP's inner value")
        self.facts.say(down, mlp_width=down.widths[0])
        self._name(down, f"{prefix}down", bias="mlp")
        self._joins(down.outputs[0], add)
        return add.outputs[0]

    def _plain(self, x: str, prefix: str) -> str:
        up = self._only_reader(x, Dense, role="the norm's result")
        self._name(up, f"{prefix}up", bias="mlp")
        function = self._only_reader(up.outputs[0], Activation, role=f"the result of `{up.path}`")
        self.facts.say(function, activation=_plain_name(function), gated_mlp=False)
        return self._take(function)

    def _gated(self, readers: list[Step], prefix: str) -> str:
        after = [
            self._only_reader(r.outputs[0], Activation, Multiply, role=f"the result of `{r.path}`") for r in readers
        ]
        functions = [a for a in after if isinstance(a.layer, Activation)]
        if len(functions) != 1:
            _refuse(readers[1], "a gated MLP has one activation, on the gate")
        gate, up = readers if after[0] is functions[0] else reversed(readers)
        product = self._only_reader(functions[0].outputs[0], Multiply, role="the gate")
        if set(product.inputs) != {functions[0].outputs[0], up.outputs[0]} or len(product.inputs) != 2:
            _refuse(product, "a gated MLP multiplies the gate and one other projection")
        self._name(gate, f"{prefix}gate", bias="mlp")
        self._name(up, f"{prefix}up", bias="mlp")
        self.facts.say(functions[0], activation=_plain_name(functions[0]), gated_mlp=True)
        self._take(functions[0])
        return self._take(product)

    def _residual(self, stream: str) -> tuple[Step, Step, str]:
        """The norm that reads the stream, the Add that writes it again, and the norm's result."""
        adds = [r for r in self.flat.readers[stream] if isinstance(r.layer, Add)]
        others = [r for r in self.flat.readers[stream] if not isinstance(r.layer, Add)]
        if not adds:
            _refuse(
                others[0] if others else self.flat.steps[-1], "a residual MLP is expected here, after the attention"
            )
        if len(adds) > 1 or len(others) != 1 or stream == self.flat.output:
            _refuse((*others[1:], *adds[1:], adds[0])[0], "the residual stream has a use beside one norm and one Add")
        if not isinstance(others[0].layer, NORMS):
            _refuse(others[0], "a norm is expected here: other formats normalise the stream before attention and MLP")
        if len(adds[0].inputs) != 2:
            _refuse(adds[0], "it adds more than the stream and one branch")
        return others[0], adds[0], others[0].outputs[0]

    def _joins(self, branch: str, add: Step) -> None:
        reader = self._only_reader(branch, Add, role="the branch's result")
        if reader is not add:
            _refuse(reader, "it does not add the branch to the stream that it came from")
        self._take(add)

    def _norm(self, step: Step, name: str) -> None:
        kind = "layer" if isinstance(step.layer, LayerNormalization) else "rms"
        self.facts.say(step, kind_of_norm=kind, epsilon=float(step.layer.epsilon.value))
        self._name(step, name)

    def _head(self, head: Step, table: Step) -> None:
        if head.outputs[0] != self.flat.output:
            _refuse(head, "the network's output is something else than the result of this last Dense")
        if head.layer.units.value != table.layer.input_dim.value:
            rows = table.layer.input_dim.value
            _refuse(head, f"it gives {head.layer.units.value} numbers, and the vocabulary has {rows}")
        shared = tied(self.network.block)
        self.tied = shared.pop(f"{head.path}.weight", None) == f"{table.path}.weight"
        for name in shared:
            step = next(s for s in self.flat.steps if f"{s.path}.weight" == name)
            _refuse(step, "its weight is tied, and other formats tie only the head to the embedding")
        self._name(head, "head")

    def _decoder(self, table: Step, head: Step, layers: int, scale: float | None, context: int | None) -> Recognized:
        facts = self.facts
        self._positions_stand_once(table)
        owned = weights(self.network.block)
        return Recognized(
            Decoder(
                vocab_size=table.layer.input_dim.value,
                context=context,
                d_model=table.layer.output_dim.value,
                n_layer=layers,
                n_head=facts["heads"],
                n_kv_head=facts["kv_heads"],
                head_dim=facts["head_dim"],
                d_ff=facts["mlp_width"],
                norm=facts["kind_of_norm"],
                epsilon=facts["epsilon"],
                activation=facts["activation"],
                gated=facts["gated_mlp"],
                tied=self.tied,
                rope=facts["rotary_positions"],
                qkv_bias="qkv" in self.biases,
                out_bias="out" in self.biases,
                mlp_bias="mlp" in self.biases,
                head_bias="head" in self.biases,
                qk_norm=facts["qk_norm"],
                scale=facts["scale"],
                embedding_scale=scale,
                window=facts["window"],
                dropout=max(self.flat.dropouts),
            ),
            {ours: theirs for ours, theirs in self.names.items() if ours in owned},
        )

    def _positions_stand_once(self, table: Step) -> None:
        rotary = self.facts["rotary_positions"] is not None
        if not rotary and self.learned is None:
            _refuse(table, "no position enters the network: neither a PositionalEmbedding nor `rope`")
        if rotary and self.learned is not None:
            _refuse(self.learned, "positions are learned and rotary at once")

    def _only_reader(self, value: str, *kinds: type[Layer], role: str) -> Step:
        """The single step that reads a value, of one of these kinds."""
        readers = self.flat.readers[value]
        maker = self.flat.maker.get(value, self.flat.steps[0])
        if not readers:
            _refuse(maker, f"nothing reads its result, and {_names(kinds)} should")
        for step in readers:
            if not isinstance(step.layer, kinds):
                _refuse(step, f"it reads {role}, where {_names(kinds)} is expected")
        if len(readers) > 1 or value == self.flat.output:
            _refuse(readers[-1], f"{role} has another use beside `{readers[0].path}`")
        return readers[0]

    def _name(self, step: Step, name: str, bias: str | None = None) -> None:
        """Take a step, with its weights under a pivot name."""
        for suffix in step.weights:
            self.names[f"{step.path}.{suffix}"] = f"{name}.{suffix}"
            if suffix == "bias":
                part = name.rpartition(".")[2]
                self.biases.add(bias or ("qkv" if part in ("q", "k", "v") else part))
        self._take(step)

    def _take(self, step: Step) -> str:
        self.seen.add(step)
        return step.outputs[0]


def _rotary(layer: Attention) -> Rotary | None:
    rope = layer.turning
    if rope is None:
        return None
    plain = Rotary(base=float(rope.base.value))
    factor = float(rope.factor.value)
    if rope.scaling.value == "llama3":
        low, high = float(rope.low_frequency_factor.value), float(rope.high_frequency_factor.value)
        return Rotary(plain.base, "llama3", factor, low, high, rope.original_max_length.value)
    return replace(plain, scaling="linear", factor=factor) if rope.scaling.value == "linear" and factor != 1 else plain


def _plain_name(step: Step) -> str:
    name = step.layer.activation.value
    return "silu" if name == "swish" else name


def _names(kinds: tuple[type[Layer], ...]) -> str:
    return " or ".join(k.__name__ for k in kinds)


def _refuse(step: Step, why: str, hint: str | None = None) -> NoReturn:
    primary = Label(step.span, why) if step.span else None
    fail(
        "N860",
        f"`{step.path}` ({step.kind}) has no equal in other formats: {why}",
        primary=primary,
        notes=(KNOWN,),
        hint=hint,
    )
