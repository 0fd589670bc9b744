"""One vector for a sequence: the mean, the greatest, the last."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.effects import RealTokens
from neural.layers.layer import Layer, Mismatch, Sample, Shape, Site, Value, register, size
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.values import draw


class _Pooling(Layer):
    mixes_positions = True

    def shape(self, x: Value) -> tuple[Shape]:
        if len(x.shape) != 3:
            title = f"{type(self).__name__} takes a sequence of vectors, (B, T, width), and this is {draw(x.shape)}"
            raise Mismatch("N406", title)
        return ((x.shape[0], x.shape[2]),)

    def effects(self, x: Value):
        return (RealTokens(),)

    def flops(self, x: Value) -> int:
        return size(x.shape)


def _mask(np, state, x):
    real = state["attention_mask"]
    return np.ones(x.shape[:2], bool) if real is None else real.astype(bool)


def _real(site: OnnxSite) -> Tensor:
    """(B, T, 1), 1.0 for real positions."""
    return site.cast(site.op("Unsqueeze", site.uses(RealTokens()), site.constant([2], "int64")), "float32")


AVERAGE = '''
def average(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the real positions of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x.mean(1)
    mask = mask[:, :, None].to(x.dtype)
    return (x * mask).sum(1) / mask.sum(1)
'''

GREATEST = '''
def greatest(x: Tensor, mask: Tensor | None) -> Tensor:
    """The greatest over the real positions of x, (B, T, d) → (B, d)."""
    if mask is not None:
        x = x.masked_fill(~mask[:, :, None].bool(), float("-inf"))
    return x.amax(1)
'''

LAST = '''
def last(x: Tensor, mask: Tensor | None) -> Tensor:
    """The vector at the last real position of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x[:, -1]
    rows = torch.arange(x.size(0), device=x.device)
    positions = torch.arange(x.size(1), device=x.device)
    return x[rows, (positions * mask.bool()).argmax(1)]
'''

KERAS_GREATEST = '''
def greatest(x, mask):
    """The greatest over the real positions of x, (B, T, d) → (B, d)."""
    if mask is not None:
        x = ops.where(ops.cast(mask, "bool")[:, :, None], x, float("-inf"))
    return ops.max(x, axis=1)
'''

KERAS_LAST = '''
def last(x, mask):
    """The vector at the last real position of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x[:, -1]
    positions = ops.arange(ops.shape(x)[1]) * ops.cast(mask, "int32")
    at = ops.argmax(positions, axis=1)[:, None, None]
    return ops.take_along_axis(x, at, axis=1)[:, 0]
'''

JAX_AVERAGE = '''
def average(x: Array, mask: Array | None) -> Array:
    """The mean over the real positions of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x.mean(1)
    mask = mask[:, :, None].astype(x.dtype)
    return (x * mask).sum(1) / mask.sum(1)
'''

JAX_GREATEST = '''
def greatest(x: Array, mask: Array | None) -> Array:
    """The greatest over the real positions of x, (B, T, d) → (B, d)."""
    if mask is not None:
        x = jnp.where(mask[:, :, None].astype(bool), x, -jnp.inf)
    return x.max(1)
'''

JAX_LAST = '''
def last(x: Array, mask: Array | None) -> Array:
    """The vector at the last real position of x, (B, T, d) → (B, d)."""
    if mask is None:
        return x[:, -1]
    positions = jnp.arange(x.shape[1]) * mask.astype(bool)
    return x[jnp.arange(x.shape[0]), positions.argmax(1)]
'''


@dataclass(frozen=True)
class GlobalAveragePooling1D(_Pooling):
    """The mean over the real positions: (B, T, d) → (B, d)."""

    samples = (Sample("(4, 5)", "GlobalAveragePooling1D()"),)

    def numpy(self, np, w, x, state):
        mask = _mask(np, state, x)[:, :, None]
        return (x * mask).sum(1) / mask.sum(1)

    def torch(self, site: Site) -> str:
        site.helper(AVERAGE)
        return f"average({site.inputs[0]}, {site.uses(RealTokens())})"

    def keras(self, site: Site) -> str:
        pool = site.module("layers.GlobalAveragePooling1D()")
        return f"{pool}({site.inputs[0]}, mask={site.uses(RealTokens())})"

    def jax(self, site: Site) -> str:
        site.helper(JAX_AVERAGE)
        return f"average({site.inputs[0]}, {site.uses(RealTokens())})"

    def onnx(self, site: OnnxSite) -> Tensor:
        one, mask = site.constant([1], "int64"), _real(site)
        sums = (site.op("ReduceSum", x, one, keepdims=0) for x in (site.op("Mul", site.inputs[0], mask), mask))
        return site.op("Div", *sums)


@dataclass(frozen=True)
class GlobalMaxPooling1D(_Pooling):
    """The greatest over the real positions: (B, T, d) → (B, d)."""

    samples = (Sample("(4, 5)", "GlobalMaxPooling1D()"),)

    def numpy(self, np, w, x, state):
        return np.where(_mask(np, state, x)[:, :, None], x, -np.inf).max(1)

    def torch(self, site: Site) -> str:
        site.helper(GREATEST)
        return f"greatest({site.inputs[0]}, {site.uses(RealTokens())})"

    def keras(self, site: Site) -> str:
        site.helper(KERAS_GREATEST)
        return f"greatest({site.inputs[0]}, {site.uses(RealTokens())})"

    def jax(self, site: Site) -> str:
        site.helper(JAX_GREATEST)
        return f"greatest({site.inputs[0]}, {site.uses(RealTokens())})"

    def onnx(self, site: OnnxSite) -> Tensor:
        real = site.cast(_real(site), "bool")
        x = site.op("Where", real, site.inputs[0], site.constant(float("-inf")))
        return site.op("ReduceMax", x, site.constant([1], "int64"), keepdims=0)


@dataclass(frozen=True)
class LastToken(_Pooling):
    """The vector at the last real position: (B, T, d) → (B, d)."""

    samples = (Sample("(4, 5)", "LastToken()"),)

    def numpy(self, np, w, x, state):
        positions = (np.arange(x.shape[1]) * _mask(np, state, x)).argmax(1)
        return x[np.arange(x.shape[0]), positions]

    def torch(self, site: Site) -> str:
        site.helper(LAST)
        return f"last({site.inputs[0]}, {site.uses(RealTokens())})"

    def keras(self, site: Site) -> str:
        site.helper(KERAS_LAST)
        return f"last({site.inputs[0]}, {site.uses(RealTokens())})"

    def jax(self, site: Site) -> str:
        site.helper(JAX_LAST)
        return f"last({site.inputs[0]}, {site.uses(RealTokens())})"

    def onnx(self, site: OnnxSite) -> Tensor:
        zero, one = site.constant(0, "int64"), site.constant(1, "int64")
        slots = site.op("Range", zero, site.length(), one)
        places = site.cast(site.op("Mul", site.uses(RealTokens()), slots), "float32")
        last = site.op("ArgMax", places, axis=1, keepdims=1)  # (B, 1)
        return site.op("GatherND", site.inputs[0], last, batch_dims=1)


register(GlobalAveragePooling1D)
register(GlobalMaxPooling1D)
register(LastToken)
