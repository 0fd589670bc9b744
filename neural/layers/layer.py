"""What a layer declares, and the register of all layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from neural.layers.values import Arg, Shape, Value

if TYPE_CHECKING:
    import numpy

    from neural.layers.onnx_site import OnnxSite

    Array = numpy.ndarray


class Mismatch(Exception):
    """A shape that a layer cannot take. `argument` names the argument to change, None means the layer's input."""

    def __init__(
        self, code: str, title: str, *, argument: str | None = None, label: str = "", hint: str | None = None
    ) -> None:
        super().__init__(title)
        self.code, self.title, self.argument, self.label, self.hint = code, title, argument, label, hint


class Weight(NamedTuple):
    """A parameter under PyTorch's name. init: "matrix", "embedding", "zeros" or "ones"; buffers are not trained."""

    name: str
    shape: tuple[int, ...]
    init: str
    trained: bool = True


class Sample(NamedTuple):
    """A use of a layer that parity tests run: the input of a network and its statements."""

    input: str
    layers: str


class Site(Protocol):
    """Where a layer is spelled: one statement in a class of generated source."""

    name: str  # of the node: `self.name`
    inputs: tuple[str, ...]  # the variables that hold the inputs
    outputs: tuple[str, ...]  # the variables that are to hold the outputs
    shapes: tuple[Shape, ...]  # of the inputs

    def module(self, expression: str, suffix: str = "", shape: Shape | None = None) -> str:
        """Create a submodule in the constructor; returns what the forward pass calls. shape: of its input, by default
        the statement's."""

    def attribute(self, name: str, value: Arg) -> str:
        """Keep a constructor's value; returns how the forward pass reads it. Numbers in the file stay numbers."""

    past: str  # how many tokens a cache holds: "past", or "0" in a network without one

    def cache_layer(self) -> str:
        """How the forward pass reads the place of this attention in the cache."""

    def local(self, name: str, unread: tuple[str, ...] = ()) -> str:
        """A variable for a step in between: this one, or one like it where a value that is still needed has it, or it
        is among the variables that later steps of this statement read."""

    def line(self, statement: str) -> None:
        """A statement of the forward pass."""

    def uses(self, effect: Effect) -> str:
        """The variable in which the caller hands over an effect; "" where the network has none of its kind."""

    def helper(self, source: str) -> None:
        """A function of the generated module."""

    def initializer(self, kind: str) -> str:
        """What draws a new "matrix" or "table", for frameworks whose layers take it in their constructors."""


class Effect:
    """What a layer needs beside its inputs: a mask, positions, a cache. Rises to the network, which makes it."""

    variable: ClassVar[str]  # what it is called in generated source

    def requires(self) -> tuple[Effect, ...]:
        """Effects that this one is made from."""
        return ()

    def torch(self, site: Site) -> str:
        """The expression that makes it in the network's forward pass."""
        raise NotImplementedError

    def keras(self, site: Site) -> str:
        """The same in Keras 3."""
        raise NotImplementedError

    def jax(self, site: Site) -> str:
        """The same in JAX."""
        raise NotImplementedError

    def onnx(self, site: OnnxSite) -> Any:
        """What layers get for `site.uses(effect)`, made of operators of ONNX."""
        raise NotImplementedError


class Layer:
    """A primitive. Subclasses are frozen dataclasses whose fields are `argument(…)`s and hold `Arg`s."""

    arity: ClassVar[tuple[int, int]] = (1, 1)  # the fewest and the most inputs
    takes_ids: ClassVar[bool] = False  # True: its input is ids, not numbers
    heeds_training: ClassVar[bool] = False  # True: it does something else in training
    mixes_positions: ClassVar[bool] = False  # True: what it gives for token t depends on other tokens by no mask
    keeps_shape: ClassVar[bool] = False  # True: the output has the first input's shape, even after a mistake in it
    inlined: ClassVar[bool] = False  # True: a sum or a product, whose operands read well in place
    samples: ClassVar[tuple[Sample, ...]] = ()

    def shape(self, *inputs: Value) -> tuple[Shape, ...]:
        """The shapes of the outputs; raises Mismatch."""
        raise NotImplementedError

    def dtype(self, *inputs: Value) -> str:
        return "float32"

    def weights(self, *inputs: Value) -> tuple[Weight, ...]:
        return ()

    def effects(self, *inputs: Value) -> tuple[Effect, ...]:
        return ()

    def flops(self, *inputs: Value) -> int:
        """Multiplications and additions of the forward pass for one token (one row of the batch without a T axis)."""
        return 0

    def numpy(self, np: Any, w: dict[str, Array], *inputs: Array, state: dict[str, Any]) -> Any:
        """The meaning, in evaluation mode. `np` is the numpy module: this file must not import it."""
        raise NotImplementedError

    def torch(self, site: Site) -> str | None:
        """The expression of the output; None where the lines already assign the outputs."""
        raise NotImplementedError

    def keras(self, site: Site) -> str | None:
        """The same in Keras 3: layers as modules, `ops` for the rest."""
        raise NotImplementedError

    def jax(self, site: Site) -> str | None:
        """The same in Flax NNX: `nnx` modules, `jax.numpy` as jnp for the rest."""
        raise NotImplementedError

    def onnx(self, site: OnnxSite) -> Any:
        """The output, or a tuple of several, as operators of ONNX."""
        raise NotImplementedError


class Composite:
    """A layer whose body is made of other layers."""

    takes_ids: ClassVar[bool] = False
    keeps_shape: ClassVar[bool] = False
    arity: ClassVar[tuple[int, int]] = (1, 1)
    samples: ClassVar[tuple[Sample, ...]] = ()

    def body(self, build: Callable[..., Value], *inputs: Value) -> Value:
        """`build(layer class, *inputs, name=…, **arguments)` adds a node and gives its value."""
        raise NotImplementedError


REGISTRY: dict[str, type] = {}


def register(cls: type, *synonyms: str) -> type:
    """Make a layer known to the language. A layer without samples, or without a spelling, is refused."""
    if not cls.samples:
        raise TypeError(f"{cls.__name__} has no samples")
    for method in ("numpy", "torch", "keras", "jax", "onnx") if issubclass(cls, Layer) else ("body",):
        if getattr(cls, method) is getattr(Layer, method, None) or getattr(cls, method) is getattr(
            Composite, method, None
        ):
            raise TypeError(f"{cls.__name__} does not say what it is: {method} is missing")
    for name in (cls.__name__, *synonyms):
        REGISTRY[name] = cls
    return cls


def width(value: Value) -> Arg:
    """The length of the last axis."""
    return value.shape[-1]


def size(shape: Shape) -> int:
    """The product of the axes but the batch and the length."""
    product = 1
    for axis in shape:
        product *= 1 if axis.axis else axis.value
    return product
