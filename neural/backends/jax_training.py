"""Training in JAX: the loss, the optimizer with its schedule, and one jitted step, as a file asks for them."""

from __future__ import annotations

from neural.backends.wrapping import wrap
from neural.graph.graph import Network
from neural.graph.settings import Settings
from neural.layers.effects import RealTokens
from neural.layers.masks import CausalMask, PaddingMask

LOSSES = {
    "sparse_categorical_crossentropy": (
        "The mean cross-entropy in nats. targets: the right class of each row of logits.",
        ["logits = {output}", "return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()"],
    ),
    "categorical_crossentropy": (
        "The mean cross-entropy in nats. targets: probabilities, of the logits' shape.",
        ["logits = {output}", "return optax.softmax_cross_entropy(logits, targets).mean()"],
    ),
    "binary_crossentropy": (
        "The mean cross-entropy in nats. targets: 0 or 1, of the logits' shape.",
        ["logits = {output}", "return optax.sigmoid_binary_cross_entropy(logits, targets).mean()"],
    ),
    "mean_squared_error": (
        "The mean squared error. targets: of the output's shape.",
        ["return jnp.square({output} - targets).mean()"],
    ),
    "mean_absolute_error": (
        "The mean absolute error. targets: of the output's shape.",
        ["return jnp.abs({output} - targets).mean()"],
    ),
}

LOCALS = ("model", "optimizer", "targets", "logits", "loss", "grads")  # names of its functions

DECAY_MASK = '''
def is_matrix(params: nnx.State) -> nnx.State:
    """What decays: tensors of two or more axes; biases and norms' gains do not."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)
'''


def training_lines(network: Network) -> str:
    """The functions, or nothing for a network without a loss."""
    if network.settings.loss is None:
        return ""
    decays = bool(network.settings.optimizer.arguments.get("weight_decay"))
    parts = [_loss(network), DECAY_MASK.strip("\n") if decays else "", _optimizer(network), _step(network)]
    return "\n\n".join(f"{part}\n" for part in parts if part)


def _loss(network: Network) -> str:
    given = _batch(network)
    doc, body = LOSSES[network.settings.loss]
    output = f"model({', '.join(name for name in given if name != 'targets')})"
    head = f"def loss_fn(model: {network.name}, {', '.join(given.values())}) -> Array:"
    return _wrapped([head, f'    """{doc}"""', *(f"    {line.format(output=output)}" for line in body)])


def _batch(network: Network) -> dict[str, str]:
    """The arguments that a batch is made of, by name: the inputs, the targets, and the mask of a classifier."""
    inputs = [v.name + "_" * (v.name in LOCALS) for v in network.block.inputs]
    batch = {name: f"{name}: Array" for name in (*inputs, "targets")}
    masks = CausalMask | PaddingMask | RealTokens
    if not network.vocab_size and any(isinstance(e, masks) for e in network.block.effects()):
        batch["attention_mask"] = "attention_mask: Array | None = None"
    return batch


def _optimizer(network: Network) -> str:
    settings = network.settings
    schedule, takes_steps = rate_expression(settings)
    given = [f"model: {network.name}"]
    if takes_steps:
        given.append("steps: int" + ("" if settings.train.steps is None else f" = {settings.train.steps}"))
    accumulation = settings.train.gradient_accumulation
    if accumulation > 1:
        given.append(f"accumulation: int = {accumulation}")
    tx = _transformations(settings, "schedule" if schedule.startswith("optax") else schedule)
    lines = [
        f"def make_optimizer({', '.join(given)}) -> nnx.Optimizer:",
        *_docstring(settings, takes_steps, accumulation),
    ]
    if schedule.startswith("optax"):
        lines.append(f"    schedule = {schedule}")
    lines.append("    tx = " + (tx[0] if len(tx) == 1 else f"optax.chain({', '.join(tx)})"))
    if accumulation > 1:
        lines.append("    tx = optax.MultiSteps(tx, every_k_schedule=accumulation)")
    lines.append("    return nnx.Optimizer(model, tx, wrt=nnx.Param)")
    return _wrapped(lines)


def _docstring(settings: Settings, takes_steps: bool, accumulation: int) -> list[str]:
    first = f'    """{settings.optimizer.name} as the network\'s file asks for it.'
    more = ["steps: of the whole training."] * takes_steps + ["accumulation: batches in one step."] * (accumulation > 1)
    return [first, "", f"    {' '.join(more)}", '    """'] if more else [f'{first}"""']


def rate_expression(settings: Settings) -> tuple[str, bool]:
    """The expression of the learning rate, and whether it depends on the number of steps."""
    rate = settings.optimizer.arguments["learning_rate"]
    given = settings.lr_schedule.arguments if settings.lr_schedule else {}
    warmup = given.get("warmup_steps", 0)
    start = f"{rate} / {warmup + 1}"
    if settings.lr_schedule is None or settings.lr_schedule.name == "Constant":
        return (f"optax.linear_schedule({start}, {rate}, transition_steps={warmup})" if warmup else f"{rate}"), False
    low, end = given["min_learning_rate"], given["decay_steps"]
    last = "steps - 1" if end is None else f"{end}"
    if not warmup:
        bottom = f", alpha={low} / {rate}" if low else ""
        return f"optax.cosine_decay_schedule({rate}, decay_steps={last}{bottom})", end is None
    if (
        end or (settings.train.steps or warmup + 3) - 1
    ) <= warmup:  # all of it is warm-up; optax wants an end behind it
        last = f"max({last}, {warmup + 1})" if end is None else f"{warmup + 1}"
    parts = [f"init_value={start}", f"peak_value={rate}", f"warmup_steps={warmup}", f"decay_steps={last}"]
    return f"optax.warmup_cosine_decay_schedule({', '.join(parts)}, end_value={low})", end is None


def _transformations(settings: Settings, rate: str) -> list[str]:
    clip, given = settings.train.gradient_clip, settings.optimizer.arguments
    found = [] if clip is None else [f"optax.clip_by_global_norm({clip})"]
    decay = given.get("weight_decay")
    if settings.optimizer.name == "SGD":
        found += [f"optax.add_decayed_weights({decay}, mask=is_matrix)"] if decay else []
        momentum = f", momentum={given['momentum']}" if given["momentum"] else ""
        nesterov = ", nesterov=True" if momentum and given["nesterov"] else ""
        return [*found, f"optax.sgd({rate}{momentum}{nesterov})"]
    moments = f"{rate}, b1={given['beta_1']}, b2={given['beta_2']}, eps={given['epsilon']}"
    return [
        *found,
        f"optax.adamw({moments}, weight_decay={decay}, mask=is_matrix)" if decay else f"optax.adam({moments})",
    ]


def _step(network: Network) -> str:
    given = _batch(network)
    lines = [
        '@nnx.jit(donate_argnames=("model", "optimizer"))',
        f"def train_step(model: {network.name}, optimizer: nnx.Optimizer, {', '.join(given.values())}) -> Array:",
        '    """One step on a batch. Returns the loss before it."""',
        f"    loss, grads = nnx.value_and_grad(loss_fn)(model, {', '.join(given)})",
        "    optimizer.update(model, grads)",
        "    return loss",
    ]
    return _wrapped(lines)


def _wrapped(lines: list[str]) -> str:
    return "\n".join(piece for line in lines for piece in wrap(line))
