"""How a network of Keras is compiled: loss, optimizer with its schedule, metrics."""

from __future__ import annotations

from neural.graph.graph import Network
from neural.graph.sections import ACTIVATED, CROSS_ENTROPIES
from neural.graph.settings import Choice, Settings

JIT_COMPILE = """
# On PyTorch it is torch.compile, which takes minutes and wants a C++ compiler.
JIT_COMPILE = keras.backend.backend() != "torch"
"""

COMPILE_FROM_CONFIG = [
    "",
    "    def compile_from_config(self, config):",
    '        """As saved; whether it is compiled is up to the engine that it runs on now."""',
    '        super().compile_from_config({**config, "jit_compile": JIT_COMPILE})',
]

PERPLEXITY = '''
@keras.saving.register_keras_serializable(package="⟨package⟩")
class Perplexity(keras.metrics.⟨base⟩):
    """The exponential of the mean cross-entropy."""

    def result(self):
        return ops.exp(super().result())
'''

DENSE = """
    def apply(self, grads, trainable_variables=None):
        # of a table, TensorFlow has a row for each time that one was read: summed
        grads = [ops.add(g, 0) if hasattr(g, "dense_shape") else g for g in grads]
        super().apply(grads, trainable_variables)
"""

ADAM = '''
@keras.saving.register_keras_serializable(package="⟨package⟩")
class ⟨name⟩(keras.optimizers.⟨name⟩):
    """⟨name⟩ as PyTorch has it: epsilon is added to the corrected second moment⟨also⟩."""
⟨build⟩⟨dense⟩
    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = ops.cast(self.iterations + 1, "float32")
        rate = learning_rate / (1 - ops.power(self.beta_1, step))
        scale = 1 / ops.sqrt(1 - ops.power(self.beta_2, step))
        root = ops.sqrt(square) * ops.cast(scale, variable.dtype) + self.epsilon
        self.assign_sub(variable, ops.cast(rate, variable.dtype) * mean / root)
'''

ADAM_DECAYS = """
    def build(self, variables):
        vectors = [v for v in variables if len(v.shape) < 2]
        self.exclude_from_weight_decay(var_list=vectors)
        super().build(variables)
"""

SGD = '''
@keras.saving.register_keras_serializable(package="⟨package⟩")
class SGD(keras.optimizers.SGD):
    """Gradient descent as PyTorch has it: the velocity does not hold the rate, and the
    decay of matrices is a part of their gradient.
    """

    def __init__(self, *args, decay=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.decay = decay
⟨dense⟩
    def update_step(self, gradient, variable, learning_rate):
        step = gradient
        if len(variable.shape) > 1:
            step = step + self.decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            moved = self.momentum * velocity + step
            self.assign(velocity, moved)
            step = step + self.momentum * moved if self.nesterov else moved
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}
'''

LOSSES = {
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy(from_logits=True)",
    "categorical_crossentropy": "CategoricalCrossentropy(from_logits=True)",
    "binary_crossentropy": "BinaryCrossentropy(from_logits=True)",
    "mean_squared_error": "MeanSquaredError()",
    "mean_absolute_error": "MeanAbsoluteError()",
}
ACCURACIES = {
    "sparse_categorical_crossentropy": 'SparseCategoricalAccuracy(name="accuracy")',
    "categorical_crossentropy": 'CategoricalAccuracy(name="accuracy")',
    "binary_crossentropy": 'BinaryAccuracy(name="accuracy", threshold=0.0)',  # a logit of 0 is a half
}
SCHEDULES = "keras.optimizers.schedules."


def training_classes(network: Network) -> list[str]:
    """The source of the classes that `compile` needs and Keras has not."""
    settings = network.settings
    if settings.loss is None:
        return []
    found = [JIT_COMPILE]
    if "perplexity" in settings.metrics and settings.loss in CROSS_ENTROPIES:
        found.append(PERPLEXITY.replace("⟨base⟩", LOSSES[settings.loss].partition("(")[0]))
    if settings.optimizer.name == "SGD" and _as_pytorch(settings):
        found.append(SGD)
    if settings.optimizer.name != "SGD":
        found.append(_adam(settings))
    return [source.replace("⟨package⟩", network.name).replace("⟨dense⟩", DENSE.rstrip() + "\n") for source in found]


def _adam(settings: Settings) -> str:
    decays = bool(settings.optimizer.arguments.get("weight_decay"))
    source = ADAM.replace("⟨name⟩", "AdamW" if decays else "Adam")
    also = ",\n    and biases and the gains of norms do not decay.\n    " if decays else "."
    return source.replace("⟨also⟩.", also).replace("⟨build⟩", ADAM_DECAYS.rstrip() + "\n" if decays else "")


def needs_steps(settings: Settings) -> bool:
    """Whether the schedule wants the length of the training, which the file gives in epochs or not at all."""
    schedule = settings.lr_schedule
    cosine = settings.loss is not None and schedule is not None and schedule.name == "CosineDecay"
    return cosine and schedule.arguments.get("decay_steps") is None and settings.train.steps is None


def default_steps(settings: Settings) -> int:
    """A length to start with: the warm-up is a tenth of it, or less."""
    return max(10_000, 10 * settings.lr_schedule.arguments["warmup_steps"])


def compile_lines(network: Network, steps: str) -> list[str]:
    """`self.compile(…)`, or nothing for a network without a loss. steps: the name of their number."""
    settings = network.settings
    if settings.loss is None:
        return []
    given = [f"optimizer={_optimizer(settings, steps)}", f"loss=keras.losses.{LOSSES[settings.loss]}"]
    metrics, unseen = _metrics(settings)
    if metrics:
        given.append(f"metrics=[{', '.join(metrics)}]")
    given.append("jit_compile=JIT_COMPILE")
    notes = [f"# {name} cannot be had from logits and targets alone" for name in unseen]
    if settings.train.gradient_accumulation > 1 and settings.lr_schedule is not None:
        notes.append(f"# the schedule counts batches, {settings.train.gradient_accumulation} to a step")
    return [*notes, f"self.compile({', '.join(given)})"]


def _metrics(settings: Settings) -> tuple[list[str], list[str]]:
    """The expressions of metrics, and the names of those that Keras cannot work out of outputs and targets."""
    made, unseen = [], []
    for name in settings.metrics:
        if name == "accuracy" and settings.loss in ACCURACIES:
            made.append(f"keras.metrics.{ACCURACIES[settings.loss]}")
        elif name == "perplexity" and settings.loss in CROSS_ENTROPIES:
            made.append('Perplexity(name="perplexity", from_logits=True)')
        elif name in ("mean_squared_error", "mean_absolute_error") and settings.loss not in ACTIVATED:
            made.append(f'"{name}"')
        else:
            unseen.append(name)
    return made, unseen


def _optimizer(settings: Settings, steps: str) -> str:
    choice = settings.optimizer
    arguments = {"learning_rate": _rate(settings, steps)}
    own = ""
    if choice.name == "SGD":
        arguments |= {"momentum": float(choice.arguments["momentum"]), "nesterov": choice.arguments["nesterov"]}
        name = "SGD"
        if _as_pytorch(settings):
            own, arguments["decay"] = "SGD", choice.arguments["weight_decay"]
    else:
        arguments |= {n: choice.arguments[n] for n in ("beta_1", "beta_2", "epsilon")}
        own = name = "AdamW" if choice.arguments.get("weight_decay") else "Adam"
        if name == "AdamW":
            arguments["weight_decay"] = choice.arguments["weight_decay"]
    if settings.train.gradient_clip is not None:
        arguments["global_clipnorm"] = settings.train.gradient_clip
    if settings.train.gradient_accumulation > 1:
        arguments["gradient_accumulation_steps"] = settings.train.gradient_accumulation
    given = ", ".join(f"{n}={v}" for n, v in arguments.items() if v is not False)
    return f"{own or f'keras.optimizers.{name}'}({given})"


def _as_pytorch(settings: Settings) -> bool:
    """Whether Keras' own SGD would go another way: with a decay, a clipped norm in which the rows of a table that were
    read twice count apart, or a rate that changes under a momentum."""
    arguments, clipped = settings.optimizer.arguments, settings.train.gradient_clip is not None
    return bool(arguments["weight_decay"] or clipped or (arguments["momentum"] and settings.lr_schedule is not None))


def _rate(settings: Settings, steps: str) -> str:
    """The learning rate or its schedule.

    Keras counts batches: step s is applied at batch (s + 1) · accumulation - 1, counted from 0.
    """
    rate, schedule = float(settings.optimizer.arguments["learning_rate"]), settings.lr_schedule
    batches = settings.train.gradient_accumulation
    warmup = schedule.arguments.get("warmup_steps", 0) if schedule else 0
    rising = batches * (warmup + 1)
    start = f"{rate} / {rising}" if rising > 1 else f"{rate}"
    if schedule is None or (schedule.name == "Constant" and not warmup):
        return f"{rate}"
    if schedule.name == "Constant":
        arguments = {"initial_learning_rate": start, "decay_steps": rising - 1, "end_learning_rate": rate}
        return f"{SCHEDULES}PolynomialDecay({_written(arguments)})"
    arguments = {"initial_learning_rate": start, "decay_steps": _decay_steps(settings, schedule, steps)}
    if schedule.arguments["min_learning_rate"]:
        arguments["alpha"] = f"{schedule.arguments['min_learning_rate']} / {rate}"
    if rising > 1:
        arguments |= {"warmup_target": rate, "warmup_steps": rising - 1}
    return f"{SCHEDULES}CosineDecay({_written(arguments)})"


def _decay_steps(settings: Settings, schedule: Choice, steps: str) -> str:
    """From the warm-up's end to the step of the minimum, in batches."""
    batches, warmup = settings.train.gradient_accumulation, schedule.arguments["warmup_steps"]
    if needs_steps(settings):
        count = f"{steps} - {warmup + 1}"
        return count if batches == 1 else f"{batches} * ({count})"
    end = schedule.arguments["decay_steps"]
    end = settings.train.steps - 1 if end is None else end
    return str(batches * max(1, end - warmup))


def _written(arguments: dict[str, object]) -> str:
    return ", ".join(f"{n}={v}" for n, v in arguments.items())
