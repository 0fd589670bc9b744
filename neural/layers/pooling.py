"""One vector for a sequence: the mean, the greatest, the last."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.effects import RealTokens
from neural.layers.layer import Layer, Mismatch, Sample, Shape, Site, Value, register, size
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


@dataclass(frozen=True)
class GlobalMaxPooling1D(_Pooling):
    """The greatest over the real positions: (B, T, d) → (B, d)."""

    samples = (Sample("(4, 5)", "GlobalMaxPooling1D()"),)

    def numpy(self, np, w, x, state):
        return np.where(_mask(np, state, x)[:, :, None], x, -np.inf).max(1)

    def torch(self, site: Site) -> str:
        site.helper(GREATEST)
        return f"greatest({site.inputs[0]}, {site.uses(RealTokens())})"


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


register(GlobalAveragePooling1D)
register(GlobalMaxPooling1D)
register(LastToken)
