"""What a family of Hugging Face's models is here: its configuration, the names of its tensors, and what it can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from neural.diagnostics.diagnostic import NeuralError, fail
from neural.interop.decoder import Decoder, Rotary
from neural.interop.fields import Fields

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

# Hugging Face's name of an activation → ours. The three of the first line are one function.
ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu": "gelu", "gelu_python": "gelu", "silu": "silu", "swish": "silu", "relu": "relu", "relu2": "relu_squared",
    "tanh": "tanh", "sigmoid": "sigmoid", "mish": "mish",
}  # fmt: skip

MOST_LAYERS = 1 << 12


class Tensor(NamedTuple):
    """A tensor of a checkpoint: the pivot's tensors that it holds, stacked on axis 0."""

    name: str
    parts: tuple[str, ...]
    transposed: bool = False  # the file has it as (in, out)
    offset: float = 0.0  # what the file's numbers lack to ours


class Family(ABC):
    """One `model_type`."""

    model_type: str
    architecture: str
    base: ClassVar[str]  # the prefix of the names but the head's; checkpoints without a head leave it out
    # What may be in a configuration at a value that changes nothing; any other value is refused.
    inert: ClassVar[dict[str, tuple[Any, ...]]] = {
        "quantization_config": (None,),
        "is_encoder_decoder": (None, False),
        "add_cross_attention": (None, False),
        "partial_rotary_factor": (None, 1, 1.0),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
        "use_bidirectional_attention": (None, False),
        "num_experts": (None, 0),
        "num_local_experts": (None, 0),
        "prefix_lm": (None, False),
    }

    @abstractmethod
    def decoder(self, config: Fields) -> Decoder:
        """What a configuration says. NeuralError N864, N865."""

    @abstractmethod
    def config(self, decoder: Decoder) -> dict[str, Any]:
        """The configuration's own fields, of which `decoder` reads the same again if the family can hold it."""

    @abstractmethod
    def tensors(self, decoder: Decoder) -> Iterator[Tensor]:
        """Every tensor that a checkpoint has."""

    def filled(self, decoder: Decoder) -> Decoder:
        """The decoder with the biases that the family always has: zeros where there was none."""
        return decoder

    def why_not(self, decoder: Decoder) -> tuple[str, ...]:
        """What of a decoder the family cannot say. Dropout is no part of a model in use."""
        wanted = replace(self.filled(decoder), dropout=0.0)
        try:
            said = replace(self.decoder(Fields(self.config(wanted), Path("config.json"))), dropout=0.0)
        except NeuralError as error:
            return (error.diagnostics[0].title,)
        mine, its = asdict(wanted), asdict(said)
        return tuple(f"{name} is {mine[name]}, and it has {its[name]}" for name in mine if mine[name] != its[name])

    def common(self, decoder: Decoder) -> dict[str, Any]:
        """What every configuration has."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": decoder.vocab_size,
            "tie_word_embeddings": decoder.tied,
            "dtype": "float32",
            "torch_dtype": "float32",  # the same for transformers before 5
        }

    def refuse_unsupported(self, config: Fields) -> None:
        """NeuralError N865 for a field that changes the model in a way that a decoder cannot say."""
        for name, harmless in self.inert.items():
            value = config.values.get(name)
            if value not in harmless:
                unsupported(config, name, "it changes the model in a way that has no equal here")


def unsupported(config: Fields, name: str, why: str) -> None:
    fail("N865", f"`{name}: {str(config.values.get(name))[:60]}` in {config.path} is not supported: {why}")


def activation(config: Fields, name: str, default: str) -> str:
    """Our name of an activation. NeuralError N865."""
    found = config.text(name, default)
    if found not in ACTIVATIONS:
        unsupported(config, name, f"activations that are known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]


def theirs(activation_name: str, preferred: str = "gelu_pytorch_tanh") -> str:
    """Hugging Face's name of an activation; one that it has not is written as it is, and read as unknown."""
    if activation_name == "gelu_tanh":
        return preferred
    return next((theirs for theirs, ours in ACTIVATIONS.items() if ours == activation_name), activation_name)


def rotary(config: Fields) -> Rotary:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before it). NeuralError N865."""
    old, new = config.group("rope_scaling"), config.group("rope_parameters")
    rope = old or new or Fields({}, config.path)
    if any(isinstance(v, dict) for v in rope.values.values()):
        unsupported(config, "rope_parameters", "it differs from layer to layer")
    theta = config.number("rope_theta", 10000.0)
    base = rope.number("rope_theta", new.number("rope_theta", theta) if new else theta)
    kind = rope.text("rope_type", rope.text("type", "default"))
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        unsupported(config, "rope_parameters", "only a part of each head turns")
    if kind == "default":
        return Rotary(base)
    if kind == "linear":
        factor = rope.number("factor")
        return Rotary(base, "linear", factor) if factor != 1 else Rotary(base)
    if kind != "llama3":
        unsupported(config, "rope_scaling" if old else "rope_parameters", "known are default, linear and llama3")
    return Rotary(
        base,
        "llama3",
        rope.number("factor"),
        rope.number("low_freq_factor"),
        rope.number("high_freq_factor"),
        rope.size("original_max_position_embeddings", config.size("max_position_embeddings")),
    )


def rotary_config(rope: Rotary) -> dict[str, Any]:
    """In both spellings."""
    scaling: dict[str, Any] = {"rope_type": "default" if rope.scaling == "none" else rope.scaling}
    if rope.scaling != "none":
        scaling["factor"] = rope.factor
    if rope.scaling == "llama3":
        scaling["low_freq_factor"] = rope.low_frequency_factor
        scaling["high_freq_factor"] = rope.high_frequency_factor
        scaling["original_max_position_embeddings"] = rope.original_max_length
    old = {"rope_scaling": scaling} if rope.scaling != "none" else {}
    return {"rope_theta": rope.base, "rope_parameters": {"rope_theta": rope.base, **scaling}, **old}


def assembled(tensor: Tensor, tensors: Mapping[str, Array]) -> Array:
    """The tensor as the file has it."""
    import numpy as np

    values = [tensors[p] for p in tensor.parts]
    whole = values[0] if len(values) == 1 else np.concatenate(values)
    whole = whole.T if tensor.transposed else whole
    return whole - np.float32(tensor.offset) if tensor.offset else whole


def parts(tensor: Tensor, found: Array, known: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The pivot's tensors, of `known` shapes, in one of the file's. NeuralError N861 if they do not fit."""
    import numpy as np

    shapes = [known[p] for p in tensor.parts]
    expected = (sum(s[0] for s in shapes), *shapes[0][1:])
    expected = expected[::-1] if tensor.transposed else expected
    if tuple(found.shape) != expected:
        fail("N861", f"`{tensor.name}` has the shape {tuple(found.shape)}, and the configuration says {expected}")
    whole = found.T if tensor.transposed else found
    whole = whole + np.float32(tensor.offset) if tensor.offset else whole
    ends = [sum(s[0] for s in shapes[: i + 1]) for i in range(len(shapes) - 1)]
    return dict(zip(tensor.parts, np.split(whole, ends) if ends else (whole,), strict=True))
