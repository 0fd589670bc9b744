"""Multi-head attention with its projections."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.arguments import BOOLEAN, NUMBER, RATE, SIZE, argument
from neural.layers.attention import Attention, divides
from neural.layers.dense import Dense
from neural.layers.layer import Composite, Mismatch, Sample, Value, register, width
from neural.layers.rotary import ROPE
from neural.layers.values import Arg, draw


@dataclass(frozen=True)
class MultiHeadAttention(Composite):
    """Projections of the input to queries, keys and values, attention, and a projection back to the input's width."""

    num_heads: object = argument(SIZE, doc="number of heads")
    key_dim: object = argument(
        SIZE.optional(), Arg.of(None), doc="width of a head; by default the input's width / num_heads"
    )
    num_kv_heads: object = argument(SIZE.optional(), Arg.of(None), doc="heads of keys and values; by default num_heads")
    causal: object = argument(BOOLEAN, Arg.of(False), doc="whether a token sees only itself and what stands before it")
    dropout: object = argument(RATE, Arg.of(0.0), doc="rate of dropout on the attention weights", stand_in=Arg.of(0.0))
    window: object = argument(
        SIZE.optional(), Arg.of(None), doc="how many tokens back a causal token sees, itself included"
    )
    rope: object = argument(ROPE, Arg.of(None), doc="rotary positions: the base, or Rope(…)")
    qk_norm: object = argument(
        BOOLEAN, Arg.of(False), doc="RMS normalisation of queries and keys, head by head", stand_in=Arg.of(False)
    )
    scale: object = argument(
        NUMBER.optional(),
        Arg.of(None),
        doc="factor of the products; by default 1 / sqrt(key_dim)",
        stand_in=Arg.of(None),
    )
    use_bias: object = argument(BOOLEAN, Arg.of(True), doc="whether the projections have biases", stand_in=Arg.of(True))

    keeps_shape = True
    samples = (
        Sample("(4, 8)", "MultiHeadAttention(num_heads=2)"),
        Sample(
            "(4, 8)",
            "MultiHeadAttention(num_heads=4, num_kv_heads=2, key_dim=6, causal=true, rope=100.0, use_bias=false)",
        ),
    )

    def body(self, build, x: Value) -> Value:
        if len(x.shape) != 3:
            title = f"MultiHeadAttention takes a sequence of vectors, (B, T, width), and this is {draw(x.shape)}"
            raise Mismatch("N406", title)
        if self.key_dim.value is None:
            divides(width(x), self.num_heads, "num_heads")
        head = width(x).over(self.num_heads) if self.key_dim.value is None else self.key_dim
        wide = width(x) if self.key_dim.value is None else self.num_heads.times(head)
        kv_heads = self.num_heads if self.num_kv_heads.value is None else self.num_kv_heads
        narrow = wide if kv_heads.value == self.num_heads.value else kv_heads.times(head)
        q, k, v = (
            build(Dense, x, name=name, units=units, use_bias=self.use_bias)
            for name, units in (("q", wide), ("k", narrow), ("v", narrow))
        )
        shared = ("num_heads", "num_kv_heads", "causal", "dropout", "window", "rope", "qk_norm", "scale")
        y = build(Attention, q, k, v, **{n: getattr(self, n) for n in shared})
        return build(Dense, y, name="out", units=width(x), use_bias=self.use_bias)


register(MultiHeadAttention)
