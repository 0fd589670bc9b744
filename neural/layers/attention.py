"""Attention of queries on keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from neural.layers.arguments import BOOLEAN, NUMBER, RATE, SIZE, argument
from neural.layers.effects import Cache
from neural.layers.heads import JAX, JAX_DROPOUT_ATTENTION, KERAS, KERAS_ATTEND, KERAS_HEADS, TORCH, Words
from neural.layers.layer import (
    Effect,
    Layer,
    Mismatch,
    Sample,
    Shape,
    Site,
    Value,
    Weight,
    register,
    size,
    width,
)
from neural.layers.masks import CausalMask, PaddingMask
from neural.layers.normalization import rms_normalized
from neural.layers.onnx_site import OnnxSite, Tensor
from neural.layers.rotary import ROPE, Rope, Rotary, turned
from neural.layers.values import Arg, draw, same


@dataclass(frozen=True)
class Attention(Layer):
    """Scaled dot-product attention (Vaswani et al. 2017) of queries on keys and values.

    q (B, T, num_heads · head_dim); k, v (B, S, num_kv_heads · head_dim) → (B, T, num_heads · head_dim).
    One input serves as all three. `num_kv_heads` below `num_heads` shares keys and values (Ainslie et al. 2023).
    """

    num_heads: object = argument(SIZE, doc="number of heads")
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
        doc="factor of the products; by default 1 / sqrt(head_dim)",
        stand_in=Arg.of(None),
    )

    arity = (1, 3)
    keeps_shape = True
    samples = (
        Sample("(4, 8)", "Attention(num_heads=2)"),
        Sample("(4, 8)", "Attention(num_heads=2, causal=true, scale=0.3)"),
        Sample("(4, 8)", "Attention(num_heads=2, causal=true, rope=100.0, qk_norm=true)"),
        Sample("(6, 8)", "Attention(num_heads=4, causal=true, window=2)"),
        Sample(
            "(4, 8)",
            "q = Dense(input, 8) k = Dense(input, 4) v = Dense(input, 4) "
            "Attention(q, k, v, num_heads=4, num_kv_heads=2)",
        ),
        Sample("(9, 8)", 'Attention(num_heads=2, causal=true, rope=Rope(base=50.0, scaling="linear", factor=2.0))'),
        Sample(
            "(9, 8)",
            'Attention(num_heads=1, rope=Rope(base=50.0, scaling="llama3", factor=4.0, original_max_length=16))',
        ),
    )

    @property
    def kv_heads(self) -> Arg:
        return self.num_heads if self.num_kv_heads.value is None else self.num_kv_heads

    @property
    def grouped(self) -> bool:
        """Whether heads of queries share those of keys and values."""
        return self.kv_heads.value != self.num_heads.value

    @property
    def turning(self) -> Rope | None:
        """The rotary positions, if any."""
        rope = self.rope.value
        return rope if rope is None or isinstance(rope, Rope) else Rope(base=self.rope)

    def shape(self, *inputs: Value) -> tuple[Shape]:
        if len(inputs) == 2:
            hint = "write `Attention(q, k, v, …)`"
            raise Mismatch(
                "N403", "Attention takes one value, or three: queries, keys and values", label="has two", hint=hint
            )
        q, k, v = inputs * 3 if len(inputs) == 1 else inputs
        for value, role in ((q, "queries"), (k, "keys"), (v, "values")):
            if len(value.shape) != 3:
                title = f"attention takes sequences of vectors, (B, T, width), and its {role} are {draw(value.shape)}"
                raise Mismatch("N406", title)
        heads, kv_heads = self.num_heads.value, self.kv_heads.value
        divides(width(q), self.num_heads, "num_heads")
        if heads % kv_heads:
            raise Mismatch(
                "N409",
                f"{heads} heads cannot share {kv_heads} heads of keys and values evenly",
                argument="num_kv_heads",
                hint=f"use a divisor of {heads}",
            )
        if not same((width(k),), (width(v),)) or width(k).value * heads != width(q).value * kv_heads:
            right = width(q).value // heads * kv_heads
            found = f"keys are {width(k).value} and values {width(v).value}"
            title = f"{kv_heads} heads of keys and values are {right} wide; here {found}"
            raise Mismatch("N410", title, hint=f"give keys and values {right} units")
        if not same((k.shape[1],), (v.shape[1],)) or (self.causal.value and not same((q.shape[1],), (k.shape[1],))):
            lengths = ", ".join(str(x.shape[1]) for x in (q, k, v))
            raise Mismatch(
                "N410", f"the lengths of queries, keys and values differ: {lengths}", hint="give them one length"
            )
        if self.window.value is not None and not self.causal.value:
            raise Mismatch(
                "N411",
                "a window looks back, so attention with one must be causal",
                argument="window",
                hint="add `causal=true`",
            )
        if self.turning and width(q).value // heads % 2:
            raise Mismatch(
                "N408",
                f"rotary positions need heads of an even width, and these are {width(q).value // heads}",
                argument="rope",
                hint=f"make the width a multiple of {2 * heads}, or use fewer heads",
            )
        return (q.shape,)

    def weights(self, *inputs: Value) -> tuple[Weight, ...]:
        if not self.qk_norm.value:
            return ()
        head = (width(inputs[0]).value // self.num_heads.value,)
        return (Weight("q_norm.weight", head, "ones"), Weight("k_norm.weight", head, "ones"))

    def effects(self, *inputs: Value) -> tuple[Effect, ...]:
        mask = (
            CausalMask(self.window.value, self.window.named(self.window.root)) if self.causal.value else PaddingMask()
        )
        needs: tuple[Effect, ...] = (mask,)
        if self.turning:
            head_dim = width(inputs[0]).over(self.num_heads)
            written = tuple(a.named(a.root) for a in self.turning.written())
            values = tuple(a.value for a in written)
            needs += (
                Rotary(head_dim.value, values, head_dim.named(head_dim.root), self.turning.scaling.value, written),
            )
        return (*needs, Cache()) if self.causal.value else needs

    def flops(self, *inputs: Value) -> int:
        """Of one query on all S keys: q·k and the weighted sum of v; S is the window where there is one."""
        length = inputs[-1].shape[1].value
        return 4 * size(inputs[0].shape) * min(length, self.window.value or length)

    def numpy(self, np, w, *inputs, state):
        q, k, v = inputs * 3 if len(inputs) == 1 else inputs
        heads, kv_heads = self.num_heads.value, self.kv_heads.value
        q, k, v = (_split_heads(x, n) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
        if self.qk_norm.value:
            q, k = (rms_normalized(np, x, 1e-6) * w[n] for x, n in ((q, "q_norm.weight"), (k, "k_norm.weight")))
        if self.turning:
            q, k = (turned(np, x, self.turning.frequencies(np, x.shape[-1]), state["positions"]) for x in (q, k))
        k, v = (np.repeat(x, heads // kv_heads, axis=1) for x in (k, v))
        scores = q @ k.swapaxes(-1, -2) * (self.scale.value if self.scale.value is not None else q.shape[-1] ** -0.5)
        i, j = np.arange(q.shape[2])[:, None], np.arange(k.shape[2])
        seen = (
            (j <= i) & (j > i - (self.window.value or j.size + 1))
            if self.causal.value
            else np.ones((i.size, j.size), bool)
        )
        if state["attention_mask"] is not None:
            seen = seen & state["attention_mask"][:, None, None, :].astype(bool)
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = weights / weights.sum(-1, keepdims=True) @ v
        return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)

    def _by_head(self, site: Site, words: Words) -> tuple[tuple[str, str, str], dict[type, str]]:
        """Queries, keys and values apart by head, normalised, turned, and with those of the cache.

        Returns their variables, and those of the effects by type.
        """
        sources = site.inputs * 3 if len(site.inputs) == 1 else site.inputs
        effects = {type(e): site.uses(e) for e in self.effects(Value("", site.shapes[0]))}
        heads, kv_heads = self._counts(site)
        if words.note:
            site.line(words.note)
        q, k, v = site.local("q", sources[1:]), site.local("k", sources[2:]), site.local("v")
        for name, source, n in zip((q, k, v), sources, (heads, kv_heads, kv_heads), strict=True):
            site.line(f"{name} = {words.split.format(x=source, n=n)}")
        if self.qk_norm.value:
            head_dim = site.shapes[0][-1].over(self.num_heads)
            made = words.norm.format(head_dim=head_dim.text)
            shape = (*site.shapes[0][:2], self.num_heads, head_dim)
            norms = [site.module(made, suffix=n, shape=shape) for n in ("q_norm", "k_norm")]
            site.line(f"{q}, {k} = {norms[0]}({q}), {norms[1]}({k})")
        if self.turning:
            site.helper(words.rotate)
            site.line(f"{q}, {k} = rotate({q}, {effects[Rotary]}), rotate({k}, {effects[Rotary]})")
        if effects.get(Cache):
            cache = effects[Cache]
            site.line(f"if {cache} is not None:\n    {k}, {v} = {cache}.update({site.cache_layer()}, {k}, {v})")
        return (q, k, v), effects

    def _counts(self, site: Site) -> tuple[str, str]:
        """How the forward pass reads the numbers of heads, of queries and of keys."""
        heads = site.attribute("num_heads", self.num_heads)
        return heads, site.attribute("num_kv_heads", self.kv_heads) if self.grouped else heads

    def torch(self, site: Site) -> str:
        qkv, effects = self._by_head(site, TORCH)
        site.line(self._product(site, effects, qkv))
        return f"{site.outputs[0]}.transpose(1, 2).flatten(-2)  # (B, T, {site.shapes[0][-1].text})"

    def onnx(self, site: OnnxSite) -> Tensor:
        q, k, v = site.inputs * 3 if len(site.inputs) == 1 else site.inputs
        heads, kv_heads = self.num_heads.value, self.kv_heads.value
        head_dim = site.shapes[0][-1].value // heads
        effects = {type(e): e for e in self.effects(Value("", site.shapes[0]))}
        if self.qk_norm.value:
            q, k = (self._normalized(site, *x) for x in ((q, heads, "q_norm.weight"), (k, kv_heads, "k_norm.weight")))
        if self.turning:
            angles = site.uses(effects[Rotary])
            q, k = (site.op("RotaryEmbedding", x, *angles, num_heads=n) for x, n in ((q, heads), (k, kv_heads)))
        scale = self.scale.value
        if scale is not None and scale <= 0:  # the operator takes the root of its scale, and 0 for its default
            q, scale = site.op("Mul", q, site.constant(scale)), 1.0
        given = {} if scale is None else {"scale": float(scale)}
        if CausalMask in effects:
            mask = site.uses(effects[CausalMask])
        else:  # onnxruntime wants a row of the mask for each query
            ones = site.constant([1], "int64")
            length = site.op("Unsqueeze", site.length(), site.constant([0], "int64"))
            rows = site.op("Concat", ones, ones, length, ones, axis=0)
            mask = site.op("Expand", site.uses(effects[PaddingMask]), rows)
        return site.attend(q, k, v, mask, q_num_heads=heads, kv_num_heads=kv_heads, head_dim=head_dim, **given)

    def _normalized(self, site: OnnxSite, x: Tensor, heads: int, weight: str) -> Tensor:
        apart = site.op("Reshape", x, site.constant([0, 0, heads, -1], "int64"))
        normal = site.op("RMSNormalization", apart, site.weight(weight), epsilon=1e-6)
        return site.op("Reshape", normal, site.constant([0, 0, -1], "int64"))

    def _product(self, site: Site, effects: dict[type, str], qkv: tuple[str, str, str]) -> str:
        mask = effects.get(CausalMask) or effects[PaddingMask]
        given = [f"attn_mask={mask}"]
        if self.dropout.text != "0.0":
            rate = site.attribute("attention_dropout", self.dropout)
            given.append(f"dropout_p={rate} if self.training else 0.0")
        if self.causal.value and self.window.value is None:
            given.append(f"is_causal={mask} is None" + (f" and {qkv[0]}.size(-2) > 1" if effects[Cache] else ""))
        if self.scale.value is not None:
            given.append(f"scale={site.attribute('scale', self.scale)}")
        if self.grouped:
            given.append("enable_gqa=True")
        return f"{site.outputs[0]} = F.scaled_dot_product_attention({', '.join(qkv)}, {', '.join(given)})"

    @property
    def heeds_training(self) -> bool:
        return self.dropout.text != "0.0"

    def keras(self, site: Site) -> str:
        site.helper(KERAS_HEADS)
        (q, k, v), effects = self._by_head(site, KERAS)
        if self.kv_heads.value == 1 and self.grouped:  # keras.ops shares the heads of more than one
            heads, _ = self._counts(site)
            site.line(f"{k}, {v} = ops.repeat({k}, {heads}, axis=2), ops.repeat({v}, {heads}, axis=2)")
        self._keras_product(site, effects, (q, k, v))
        return f"merge_heads({site.outputs[0]})"

    def _keras_product(self, site: Site, effects: dict[type, str], qkv: tuple[str, str, str]) -> None:
        mask = effects.get(CausalMask) or effects[PaddingMask]
        given = [*qkv, f"mask={mask}"]
        if self.causal.value and self.window.value is None:
            given.append(f"is_causal={mask} is None")
        if self.scale.value is not None:
            given.append(f"scale={site.attribute('scale', self.scale)}")
        fused = f"{site.outputs[0]} = ops.dot_product_attention({', '.join(given)})"
        if not self.heeds_training:
            site.line(fused)
            return
        site.helper(KERAS_ATTEND)
        dropout = site.module(f"layers.Dropout({self.dropout.text})", suffix="dropout")
        dropped = f"{site.outputs[0]} = attend({', '.join([*given, f'dropout={dropout}'])})"
        site.line(f"if training:\n    {dropped}\nelse:\n    {fused}")

    def jax(self, site: Site) -> str:
        qkv, effects = self._by_head(site, JAX)
        mask = effects.get(CausalMask) or effects[PaddingMask]
        site.line(f"{site.outputs[0]} = {self._jax_product(site, qkv, mask)}")
        return f"{site.outputs[0]}.reshape(*{site.outputs[0]}.shape[:2], -1)  # (B, T, {site.shapes[0][-1].text})"

    def _jax_product(self, site: Site, qkv: tuple[str, str, str], mask: str) -> str:
        scale = None if self.scale.value is None else site.attribute("scale", self.scale)
        if self.dropout.text == "0.0":
            given = f"mask={mask}" + (f", scale={scale}" if scale else "")
            return f"jax.nn.dot_product_attention({', '.join(qkv)}, {given})"
        if scale:
            site.line(f"{qkv[0]} = {qkv[0]} * ({scale} * {qkv[0]}.shape[-1] ** 0.5)  # over sqrt(head_dim) below")
        site.helper(JAX_DROPOUT_ATTENTION)
        made = f"nnx.Dropout({self.dropout.text}, rngs=rngs)"
        dropout = site.attribute("attention_dropout", Arg(self.dropout.value, made, made))
        return f"dropout_attention({', '.join(qkv)}, {mask}, {dropout})"


def divides(total: Arg, heads: Arg, argument: str) -> None:
    """Raises Mismatch where a width is not whole heads."""
    if total.value % heads.value:
        near = max(n for n in range(1, heads.value + 1) if total.value % n == 0) if heads.value < 10**5 else 1
        raise Mismatch(
            "N402", f"a width of {total.value} does not divide into {heads.value} heads", argument=argument,
            label=f"{total.value} / {heads.value} is {total.value / heads.value:.2f}",
            hint=f"change the width to {-(-total.value // heads.value) * heads.value}, or use {near} heads",
        )  # fmt: skip


def _split_heads(x, heads: int):
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)  # (B, heads, T, head_dim)


register(Attention)
