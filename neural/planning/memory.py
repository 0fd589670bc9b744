"""Memory of training and of generating, in bytes. Weights, gradients and moments are float32."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from neural.graph.graph import Block, Network, Node, count_parameters, primitives, tied, weights
from neural.graph.head import head
from neural.graph.sections import CROSS_ENTROPIES
from neural.layers.attention import Attention
from neural.layers.dense import Dense, Projections
from neural.layers.embedding import Embedding
from neural.layers.layer import width
from neural.layers.normalization import BatchNormalization
from neural.layers.reshaping import Dropout
from neural.planning.activations import dropped
from neural.planning.layout import Layout
from neural.planning.sizes import FLOAT, HALF, Setting

PARTS = ("weights", "gradients", "optimizer", "copies", "activations", "logits", "head", "process", "fragments")
PROCESS = 400 * 2**20  # bytes of Python, torch and what the libraries of products hold, in a training on a CPU
TOKEN = 2800  # more of them for each token of the vocabulary: its text and merges, in Python and in Rust
AGAIN = {"float32": 0.4, "bfloat16": 2.2, "float16": 2.2}  # of a block that is computed again: copies in half precision
ENDS = 0.15  # more of activations that is held where threads have heaps, by bench/train_memory.py with two of them

LOGITS = {"cpu": 2**24, "cuda": 2**28}  # numbers that the trainer has in memory at a time, by device and thread
DEPTH = 129  # of sums of products: oneDNN has faster ones than MKL from there on, which take their own memory on a CPU
THREADS = 4  # of a CPU at most, that take sequences of their own; more would mostly wait for Python
PARAMETERS = 2**25  # at most, as each thread has a gradient of its own: 128 MiB


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes that one device needs for training steps.

    copies: of weights in half precision, or gathered from other devices' slices, or of gradients. activations: what the
    forward pass keeps for the backward pass; with checkpointing `again` bytes of them are one block's, which are made
    again. logits: what the loss holds beside these, and kept_logits of it always. passing: the most that one layer of
    the backward pass needs for a moment. table: the gradient of a table of embeddings that is added to another one of
    it, at the end. head: the gradient of the head's weight, which is made with the loss. earlier: the gradients of an
    earlier forward pass of the step, and waiting what is added to them only at the end of the backward pass, of the
    head. Where threads have sequences of their own, gradients are those of each of them and these. process: what is
    there before a model is. fragments: free memory between arrays, that is held and does not fit the next ones. On a
    GPU both are 0: what the framework takes of it comes on top.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    again: int
    logits: int
    passing: int
    table: int
    head: int
    earlier: int
    waiting: int = 0
    kept_logits: int = 0
    process: int = 0
    fragments: int = 0

    @property
    def moments(self) -> dict[str, int]:
        """What is held at the moments of a step that can be the peak."""
        held = self.weights + self.optimizer + self.kept_logits
        before = held + self.copies + self.activations + (self.earlier or self.head)
        added = self.head if self.earlier else 0  # to the one that is there
        last = {"the last block that is computed again": held + self.gradients + self.copies + self.again}
        return {
            "the loss": before - self.again + added + self.logits - self.kept_logits,
            "the backward pass": before + self.passing + self.waiting,
            **(last if self.again else {}),
            "the end of the backward pass": held + self.gradients + self.table,
        }

    @property
    def allocated(self) -> int:
        """Of arrays, at the peak."""
        return max(self.moments.values())

    @property
    def total(self) -> int:
        """Of the process, at the peak."""
        return self.allocated + self.process + self.fragments

    @property
    def peak(self) -> str:
        """When that is."""
        return max(self.moments, key=self.moments.__getitem__)


@dataclass(frozen=True, slots=True)
class GenerationMemory:
    """Bytes for generating: the weights, and the keys and values of every sequence at full context.

    cache_in_window: what the cache would hold if it dropped keys that no window reaches; `neural generate` keeps them.
    """

    weights: int
    cache: int
    cache_in_window: int

    @property
    def total(self) -> int:
        return self.weights + self.cache


def optimizer_bytes(network: Network) -> int:
    """What the optimizer keeps beside the weights: Adam's two moments, the velocity of SGD with momentum, one moment
    of Lion, one of Muon for matrices between layers, Adafactor's sums over rows and columns.
    """
    optimizer, block = network.settings.optimizer, network.block
    match optimizer.name:
        case "Adam" | "AdamW":
            return 2 * FLOAT * count_parameters(block)
        case "Lion":
            return FLOAT * count_parameters(block)
        case "Adafactor":
            trained = [w.shape for w in weights(block).values() if w.trained]
            return FLOAT * sum((s[-2] + s[-1]) * prod(s[:-2]) if len(s) > 1 else prod(s) for s in trained)
        case "Muon":
            return FLOAT * (2 * count_parameters(block) - sum(_hidden_matrices(block)))
    return FLOAT * count_parameters(block) if optimizer.arguments["momentum"] > 0 else 0


def _hidden_matrices(block: Block) -> list[int]:
    """Numbers in the weight of each product but the head, which is the last."""
    shared = tied(block)
    products = [p for p in primitives(block) if isinstance(p.node.layer, Dense | Projections)]
    own = [p for p in products[:-1] if f"{p.path}.weight" not in shared]
    return [prod(p.node.layer.weights(*p.inputs)[0].shape) for p in own]


def buffer_bytes(block: Block) -> int:
    """Weights that training does not change, such as running means."""
    return sum(
        FLOAT * prod(w.shape) * copies
        for _, node, inputs, copies in primitives(block, once=True)
        for w in node.layer.weights(*inputs)
        if not w.trained
    )


def copies_bytes(block: Block, layout: Layout, precision: str, *, checkpointing: bool = False) -> int:
    """What stands beside weights and gradients: autocast's copies of matrices, of blocks that are computed again those
    of one; where slices are gathered, the whole of two blocks and of what is in none, and the gradient of one and what
    that of the one before is sent from; the buckets in which DDP exchanges gradients.
    """
    found = 0
    if precision != "float32":
        found += HALF * _matrices(block)
        again = [n for n in block.nodes if isinstance(n.layer, Block)] if checkpointing else []
        found -= HALF * sum(n.copies * _matrices(n.layer) for n in again)
        found += HALF * max((_matrices(n.layer) for n in again), default=0)
    if layout.gathers:
        blocks = [FLOAT * count_parameters(n.layer) for n in block.nodes if isinstance(n.layer, Block)]
        rest = FLOAT * count_parameters(block) - sum(
            FLOAT * n.copies * count_parameters(n.layer) for n in block.nodes if isinstance(n.layer, Block)
        )
        found += 4 * max(blocks, default=0) + rest
    elif layout.devices > 1 and layout.tensor == 1:
        found += FLOAT * count_parameters(block)
    return found


def _matrices(block: Block) -> int:
    """Numbers in the matrices of its products."""
    return sum(
        copies * prod(node.layer.weights(*inputs)[0].shape)
        for _, node, inputs, copies in primitives(block, once=True)
        if isinstance(node.layer, Dense | Projections)
    )


def logits_bytes(network: Network, setting: Setting, precision: str) -> tuple[int, int]:
    """What the loss holds beside the network's activations and the gradient of the head's weight, and how much of it
    from then on.

    Where the trainer makes the logits in parts, one of these, on a GPU with its slopes, and in float32 where they are
    not compiled, on a CPU in half precision with a second set; and the gradient of the hidden states. Threads of a CPU
    have one part each, of a narrow model in memory that is kept: the first in that of validation, whose parts are of
    the whole batch.
    """
    output = FLOAT * setting.numbers(network.block.value(network.block.outputs[0]).shape)
    last = parted_head(network)
    if last is None:
        return output * (3 if network.settings.loss in CROSS_ENTROPIES else 2), 0
    read, rows, half = network.block.value(last.inputs[0]), setting.rows(last.outputs[0]), precision != "float32"

    def part(rows: int) -> int:
        return ceil(rows / ceil(rows * network.vocab_size / LOGITS[setting.device])) * network.vocab_size

    if setting.device == "cuda":
        compiled = network.settings.execution.get("compile") is not False
        each = 2 * (HALF if half and compiled else FLOAT) + HALF * (half and not compiled)
        return part(rows) * each + setting.bytes(read), 0
    own, depth = part(ceil(rows / setting.threads)), width(read).value
    kept = FLOAT * (part(rows) + (setting.threads - 1) * own) if depth < DEPTH else 0
    second = HALF * own if half else 0
    return (kept or setting.threads * FLOAT * own) + setting.threads * second + setting.bytes(read), kept


def parted_head(network: Network) -> Node | None:
    """The product whose logits the trainer makes in parts (`neural.training.loss`), where there is one."""
    return head(network) if network.settings.loss in CROSS_ENTROPIES else None


def head_bytes(network: Network, setting: Setting) -> int:
    """Of the gradient of the head's weight, which is made with the loss, in each thread."""
    last = parted_head(network)
    if last is None:
        return 0
    return setting.threads * FLOAT * network.vocab_size * width(network.block.value(last.inputs[0])).value


def passing_bytes(network: Network, setting: Setting) -> int:
    """The most that the backward pass of one layer holds: the gradients of what it gave or got (what was kept of these
    goes as they come), of its weight, of the residual that goes by, and of what dropout lets through of that.
    """
    most, residual, through, last = 0, 0, 0, parted_head(network)
    for _, node, inputs, _ in primitives(network.block, once=True):
        if node is last or isinstance(node.layer, Embedding):  # moments of their own
            continue
        own = setting.threads * max((FLOAT * prod(w.shape) for w in node.layer.weights(*inputs)), default=0)
        most = max(most, setting.bytes(*inputs) + own, setting.bytes(*node.outputs) + own)
        residual = max(residual, *(setting.bytes(v) for v in inputs)) if isinstance(node.layer, Attention) else residual
        if isinstance(node.layer, Dropout) and node.layer.rate.value > 0:
            through = max(through, setting.bytes(*node.outputs))
    gone = (
        0 if last is None else 2 * setting.bytes(network.block.value(last.inputs[0]))
    )  # what the head and its norm read
    return max(most + residual + through - gone, 0)


def fragments_again_bytes(again: int, precision: str) -> int:
    """Free memory between arrays at the peak where blocks are computed again: what one block's passes leave, whose
    kept activations are `again` bytes. By bench/train_memory.py.
    """
    return int(AGAIN[precision] * again)


def fragments_bytes(network: Network, setting: Setting, activations: int, logits: int) -> int:
    """Free memory between arrays that a training on a CPU holds at its peak.

    To align an array as torch asks for it, glibc 2.36 looks for a hole that is larger. So what an array of the forward
    pass leaves that is not kept, between two that are, takes none of the same size, and as little does what `logits`
    leave, those that come and go. The heap of a thread is in pieces, whose ends are too short for the next array.
    """
    ends = ENDS * activations if setting.threads > 1 else 0
    return dropped(network.block, setting) + logits + int(ends)


def table_bytes(block: Block, setting: Setting, *, accumulates: bool) -> int:
    """The largest gradient of a table of embeddings that is added to another one: the head's, or an earlier one.

    Where there are both, both are beside it. Threads with gradients of their own add these to earlier ones later.
    """
    earlier = accumulates and setting.threads == 1
    shared = {t.source for t in block.ties}
    tables = [
        (earlier + (path in shared)) * FLOAT * prod(node.layer.weights(*inputs)[0].shape)
        for path, node, inputs, _ in primitives(block, once=True)
        if isinstance(node.layer, Embedding)
    ]
    return setting.threads * max(tables, default=0)


def own_sequences(network: Network, batch: int, cores: int) -> int:
    """How many threads of a CPU have sequences of their own, in a small model of which every row is one by itself."""
    small = count_parameters(network.block) <= PARAMETERS
    independent = not any(isinstance(node.layer, BatchNormalization) for _, node, _, _ in primitives(network.block))
    return min(cores, THREADS, batch) if small and independent else 1


def cache_bytes(network: Network, setting: Setting, *, windowed: bool) -> int:
    """Keys and values (B, kv heads, T, head_dim) of all attention layers.

    windowed: no more of T than the window of a layer reaches.
    """
    if not network.cached:
        return 0
    total = 0
    for _, node, inputs, copies in primitives(network.block, once=True):
        if isinstance(node.layer, Attention):
            k = inputs[1] if len(inputs) > 1 else inputs[0]
            length = setting.axis(k.shape[1])
            kept = min(length, node.layer.window.value or length) if windowed else length
            total += copies * 2 * FLOAT * setting.batch * kept * width(k).value
    return total
