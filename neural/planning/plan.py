"""What a network costs, by arithmetic on its graph: no weight is allocated and no framework loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

from neural.cpp.building import compiler
from neural.diagnostics.diagnostic import fail
from neural.graph.graph import Block, Network, Node, count_parameters, primitives
from neural.graph.passes import optimize
from neural.graph.split import split_network
from neural.layers.layer import Mismatch
from neural.layers.values import same
from neural.planning.activations import activations, recomputed
from neural.planning.flops import TRAINING, forward_flops, recomputed_flops
from neural.planning.hardware import available_cores
from neural.planning.layout import ALONE, Layout
from neural.planning.memory import (
    PARTS,
    PROCESS,
    TOKEN,
    GenerationMemory,
    TrainingMemory,
    buffer_bytes,
    cache_bytes,
    copies_bytes,
    fragments_again_bytes,
    fragments_bytes,
    head_bytes,
    logits_bytes,
    optimizer_bytes,
    own_sequences,
    passing_bytes,
    table_bytes,
)
from neural.planning.precision import AUTO, FULL, autocast
from neural.planning.sizes import FLOAT, Setting


class HasGraph(Protocol):
    """A compiled program."""

    @property
    def graph(self) -> Network: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A node of the network, all its copies together, and the nodes within it.

    parameters: a tied weight counts where its numbers are; tied_to is the node that has them. embedding: those of the
    parameters that are in tables of embeddings.
    flops: forward, one row of the batch. activations: bytes kept for the backward pass, whole batch; what a block
    hands on counts for the block and for none of the parts within it.
    """

    name: str
    layer: str
    copies: int
    parameters: int
    embedding: int
    flops: int
    activations: int
    tied_to: str | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a network costs at a batch size and a length.

    parameters: numbers that training changes, tied ones once. embedding_parameters: those in tables of tokens and
    positions, which the N of scaling laws leaves out (Kaplan et al. 2020); an output layer with a matrix of its own is
    none of them. flops_per_token: of the forward pass; the convention is that of `neural.planning.flops`.
    flops_again: of what checkpointing computes a second time, for a token.
    context: tokens in a sequence, 1 where the network reads none: a token is then a row of the batch.
    steps: optimizer steps that the file asks for, None where it says epochs. device: whose kernels are counted on.
    precision: in which products are computed. batch_size and gradient_accumulation are those of the file, or as given;
    training, generation and the activations of parts are for one device of the layout, whose share of the batch
    device_batch is.
    """

    network: str
    parameters: int
    embedding_parameters: int
    flops_per_token: int
    flops_again: int
    batch_size: int
    device_batch: int
    context: int
    gradient_accumulation: int
    steps: int | None
    optimizer: str
    device: str
    precision: str
    layout: Layout
    checkpointing: bool  # blocks keep their inputs alone
    training: TrainingMemory
    generation: GenerationMemory
    generates: bool  # causal throughout: has a cache
    parts: tuple[Part, ...]

    @property
    def non_embedding_parameters(self) -> int:
        return self.parameters - self.embedding_parameters

    @property
    def flops_per_token_training(self) -> int:
        """Forward and backward, and what checkpointing computes again."""
        return TRAINING * self.flops_per_token + self.flops_again

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.batch_size * self.gradient_accumulation * self.context

    @property
    def training_tokens(self) -> int | None:
        """Tokens in all steps."""
        return None if self.steps is None else self.steps * self.tokens_per_step

    def to_json(self) -> dict[str, Any]:
        """For tools: counts, and memory in bytes."""
        train, generate, tokens = self.training, self.generation, self.training_tokens
        return {
            "network": self.network,
            "parameters": self.parameters,
            "embedding_parameters": self.embedding_parameters,
            "non_embedding_parameters": self.non_embedding_parameters,
            "flops_per_token": self.flops_per_token,
            "flops_per_token_training": self.flops_per_token_training,
            "batch_size": self.batch_size,
            "context": self.context,
            "device": self.device,
            "devices": self.layout.devices,
            "parallel": str(self.layout),
            "device_batch": self.device_batch,
            "precision": self.precision,
            "activation_checkpointing": self.checkpointing,
            "optimizer": self.optimizer,
            "tokens_per_step": self.tokens_per_step,
            "training_tokens": tokens,
            "training_flops": None if tokens is None else tokens * self.flops_per_token_training,
            "memory": {
                "training": {name: getattr(train, name) for name in (*PARTS, "moments", "total")},
                "generation": {n: getattr(generate, n) for n in ("weights", "cache", "cache_in_window", "total")},
            },
            "parts": [_part_json(p, self.context) for p in self.parts],
        }


def plan(
    network: Network | HasGraph,
    batch_size: int | None = None,
    context: int | None = None,
    *,
    accumulation: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    checkpointing: bool | None = None,
    layout: Layout = ALONE,
) -> Plan:
    """Parameters, FLOPs and memory of a network, or of the network of a program.

    batch_size, accumulation: sequences in one forward pass, and forward passes in a step; by default the file's.
    context: tokens in a sequence, up to and by default the most that the network reads.
    device: "cuda" or "cpu", whose kernels keep different things under dropout; by default what the file's `execution`
    says, and "cuda" where that leaves it open; a CPU is this machine's. checkpointing, precision: by default as the
    file's `execution` says, and float32 where it says "auto".

    Raises NeuralError: N020 for a batch size or context below 1, N021 for a context that the network cannot read, N732
    for devices among which the work does not divide.
    """
    graph = optimize(network if isinstance(network, Network) else network.graph)
    settings = graph.settings
    batch_size = settings.train.batch_size if batch_size is None else batch_size
    accumulation = settings.train.gradient_accumulation if accumulation is None else accumulation
    device = device or settings.execution.get("device", "auto")
    _check(graph, Setting(batch_size, context, device))
    own_batch, passes = layout.batch(batch_size, accumulation)
    setting = Setting(own_batch, context, "cuda" if device == "auto" else device)
    if precision is None:
        asked = settings.execution.get("precision", AUTO)
        precision = FULL if asked == AUTO else asked
    if checkpointing is None:
        checkpointing = bool(settings.execution.get("activation_checkpointing"))
    if setting.device == "cpu":
        cores = available_cores() if layout == ALONE else 1
        threads = own_sequences(graph, own_batch, cores)
        setting = replace(setting, own_kernels=compiler() is not None, threads=threads)
    share = autocast(_share_of(graph, layout.tensor) if layout.tensor > 1 else graph, precision)
    parts = _parts(graph.block, setting, activations(share.block, setting, checkpointing=checkpointing))
    tokens = setting.sequence(graph.block.inputs[0])
    again = recomputed(share.block, setting) if checkpointing else 0
    copies = copies_bytes(share.block, layout, precision, checkpointing=checkpointing)
    kept = (sum(p.activations for p in parts), again)
    training = _training(share, setting, layout, precision, copies, kept, accumulates=passes > 1)
    if setting.device == "cpu":
        process = PROCESS + TOKEN * (graph.vocab_size or 0)
        left = (training.activations, training.logits - training.kept_logits)
        fragments = fragments_again_bytes(again, precision) if again else fragments_bytes(share, setting, *left)
        training = replace(training, process=process, fragments=fragments)
    return Plan(
        network=graph.name,
        parameters=sum(p.parameters for p in parts),
        embedding_parameters=sum(p.embedding for p in parts),
        flops_per_token=sum(p.flops for p in parts) // tokens,
        flops_again=recomputed_flops(graph.block, setting) // tokens if checkpointing else 0,
        batch_size=batch_size,
        device_batch=own_batch,
        context=tokens,
        gradient_accumulation=accumulation,
        steps=settings.train.steps,
        optimizer=settings.optimizer.name,
        device=setting.device,
        precision=precision,
        layout=layout,
        checkpointing=checkpointing,
        training=training,
        generation=_generation(graph, replace(setting, batch=batch_size)),
        generates=graph.cached,
        parts=parts,
    )


def _share_of(graph: Network, ways: int) -> Network:
    """What each of so many devices computes. NeuralError N732 if no product divides, as for `neural train`."""
    found = split_network(graph, ways)
    if not found.rows:
        fail(
            "N732",
            f"nothing in {graph.name} divides among {ways} devices",
            notes=("heads and wide layers are split, where the number of devices divides them",),
            hint="plan for --parallel fsdp, or for another number of devices",
        )
    return found.network


def _training(
    share: Network,
    setting: Setting,
    layout: Layout,
    precision: str,
    copies: int,
    kept: tuple[int, int],
    *,
    accumulates: bool,
) -> TrainingMemory:
    """Of a device with its share of the network; `kept`: bytes of activations, and of those that are made again."""
    trained = count_parameters(share.block)
    own = layout.slice_of(trained)
    gradients = FLOAT * (trained if accumulates else own)  # which are exchanged once a step, and whole until then
    more = setting.threads - (not accumulates) if setting.threads > 1 else 0  # each thread's beside the step's
    logits, kept_logits = logits_bytes(share, setting, precision)
    head = head_bytes(share, setting)
    return TrainingMemory(
        weights=FLOAT * own + buffer_bytes(share.block),
        gradients=gradients * (1 + more),
        optimizer=layout.slice_of(optimizer_bytes(share)),
        copies=copies,
        activations=kept[0],
        again=kept[1],
        logits=logits,
        passing=passing_bytes(share, setting),
        table=table_bytes(share.block, setting, accumulates=accumulates),
        head=head,
        earlier=gradients if accumulates else 0,
        waiting=head if accumulates and (share.block.ties or setting.threads > 1) else 0,
        kept_logits=kept_logits,
    )


def _generation(graph: Network, setting: Setting) -> GenerationMemory:
    weights = FLOAT * count_parameters(graph.block) + buffer_bytes(graph.block)
    return GenerationMemory(weights, *(cache_bytes(graph, setting, windowed=w) for w in (False, True)))


def _parts(block: Block, setting: Setting, kept: dict[str, int], prefix: str = "", copies: int = 1) -> tuple[Part, ...]:
    values = block.values()
    ties = {t.target: t.source for t in block.ties}
    found = []
    for node in block.nodes:
        path, n = f"{prefix}{node.name}", copies * node.copies
        inner: tuple[Part, ...] = ()
        if isinstance(node.layer, Block):
            inner = _parts(node.layer, setting, kept, f"{path}.", n)
            parameters, embedding, flops = (
                sum(getattr(p, a) for p in inner) for a in ("parameters", "embedding", "flops")
            )
        else:
            inputs = tuple(values[i] for i in node.inputs)
            own = [
                w for w in node.layer.weights(*inputs) if w.trained and not (node.name in ties and w.name == "weight")
            ]
            parameters = n * sum(prod(w.shape) for w in own)
            embedding = n * sum(prod(w.shape) for w in own if w.init == "embedding")
            flops = n * forward_flops(node, inputs, setting)
        layer = node.layer.name if isinstance(node.layer, Block) else type(node.layer).__name__
        numbers = (parameters, embedding, flops, copies * kept[path])
        found.append(Part(node.name, layer, node.copies, *numbers, ties.get(node.name), inner))
    return tuple(found)


def _check(network: Network, setting: Setting) -> None:
    """A batch of something, and a length that every layer can take."""
    if setting.batch < 1:
        fail("N020", f"a batch of {setting.batch} sequences", hint="give --batch-size 1 or more")
    if setting.length is None:
        return
    if setting.length < 1:
        fail("N020", f"a context of {setting.length} tokens", hint="give --context 1 or more")
    if network.context is None:
        fail(
            "N021",
            f"{network.name} reads no sequence of tokens, so it has no context to choose",
            hint="leave --context out",
        )
    if setting.length > network.context:
        title = f"a context of {setting.length} tokens, and {network.name} reads {network.context} at most"
        fail("N021", title, hint="set the param that is its length, as in `--set context=…`, or give fewer")
    for _, node, inputs, _ in primitives(network.block, once=True):
        if setting.length < network.context and not _stretches(node, inputs, setting):
            title = f"{network.name} reads sequences of exactly {network.context} tokens: {node.name} needs every one"
            fail("N021", title, hint="leave --context out, or set the param that is its length")


def _stretches(node: Node, inputs: tuple, setting: Setting) -> bool:
    """Whether a layer gives, on shorter sequences, the same shape but for the length."""
    try:
        shapes = node.layer.shape(*(setting.fixed(v) for v in inputs))
    except Mismatch:
        return False
    return all(
        same(setting.fixed(v._replace(shape=s)).shape, setting.fixed(v).shape)
        for v, s in zip(node.outputs, shapes, strict=True)
    )


def _part_json(part: Part, tokens: int) -> dict[str, Any]:
    found = {n: getattr(part, n) for n in ("name", "layer", "copies", "parameters", "tied_to")}
    found |= {"flops_per_token": part.flops // tokens, "activations": part.activations}
    return found | {"parts": [_part_json(p, tokens) for p in part.parts]}
