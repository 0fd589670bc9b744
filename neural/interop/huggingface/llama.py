"""Llama (Touvron et al. 2023) and what grew out of it: a row of differences for each family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from neural.interop.decoder import Decoder
from neural.interop.fields import MISSING, Fields
from neural.interop.huggingface.family import (
    MOST_LAYERS,
    Family,
    Tensor,
    activation,
    rotary,
    rotary_config,
    theirs,
    unsupported,
)

QK_EPSILON = 1e-6  # of the language's qk_norm

_NAMES = (
    ("norm_1", "input_layernorm"), ("q", "self_attn.q_proj"), ("k", "self_attn.k_proj"), ("v", "self_attn.v_proj"),
    ("q_norm", "self_attn.q_norm"), ("k_norm", "self_attn.k_norm"), ("out", "self_attn.o_proj"),
    ("norm_2", "post_attention_layernorm"), ("gate", "mlp.gate_proj"), ("up", "mlp.up_proj"), ("down", "mlp.down_proj"),
)  # fmt: skip


@dataclass(frozen=True)
class LlamaLike(Family):
    """Differences to Llama. None for a bias: the configuration says."""

    model_type: str
    architecture: str
    qkv_bias: bool | None = None  # else `attention_bias`
    out_bias: bool | None = None  # the same
    mlp_bias: bool | None = None  # else `mlp_bias`
    kv_head: Any = None  # MISSING: `num_key_value_heads` must be there; None: its absence means one to each head
    head_dim: int | None = None  # where it is absent; None: hidden_size / num_attention_heads
    tied: bool = False  # where it is absent
    activation: str = "silu"  # where it is absent
    legacy_gelu: bool = False  # "gelu" means the approximation
    window: str = ""  # "all": `sliding_window`; "layers": where `layer_types` says so of all; "": never
    qk_norm: bool = False
    embedding_scaled: bool = False  # by the root of the width
    norm_offset: float = 0.0  # norms multiply by 1 + weight

    base: ClassVar[str] = "model."

    def decoder(self, config: Fields) -> Decoder:
        self.refuse_unsupported(config)
        n_head, n_kv_head, head_dim = self._heads(config)
        d_model = config.size("hidden_size")
        epsilon = config.number("rms_norm_eps", 1e-6)
        if self.qk_norm and epsilon != QK_EPSILON:
            unsupported(config, "rms_norm_eps", f"queries and keys are normalised with {QK_EPSILON} here")
        attention_bias = config.flag("attention_bias", False)
        return Decoder(
            vocab_size=config.size("vocab_size"),
            context=config.size("max_position_embeddings"),
            d_model=d_model,
            n_layer=config.size("num_hidden_layers", largest=MOST_LAYERS),
            n_head=n_head,
            n_kv_head=n_kv_head,
            head_dim=head_dim,
            d_ff=config.size("intermediate_size"),
            norm="rms",
            epsilon=epsilon,
            activation=self._activation(config),
            gated=True,
            tied=config.flag("tie_word_embeddings", self.tied),
            rope=rotary(config),
            qkv_bias=attention_bias if self.qkv_bias is None else self.qkv_bias,
            out_bias=attention_bias if self.out_bias is None else self.out_bias,
            mlp_bias=config.flag("mlp_bias", False) if self.mlp_bias is None else self.mlp_bias,
            qk_norm=self.qk_norm,
            embedding_scale=d_model**0.5 if self.embedding_scaled else None,
            window=self._window(config),
            dropout=config.number("attention_dropout", 0.0, zero=True),
        )

    def _heads(self, config: Fields) -> tuple[int, int, int]:
        """Heads, heads of keys and values, and their width. NeuralError N864, N865."""
        d_model, n_head = config.size("hidden_size"), config.size("num_attention_heads")
        n_kv_head = config.size("num_key_value_heads", MISSING if self.kv_head is MISSING else n_head)
        head_dim = config.size("head_dim", self.head_dim or 0) or d_model // n_head
        if not config.values.get("head_dim") and not self.head_dim and d_model % n_head:
            config.refuse("num_attention_heads", f"a divisor of hidden_size, {d_model},")
        if n_head % n_kv_head:
            config.refuse("num_key_value_heads", f"a divisor of num_attention_heads, {n_head},")
        if head_dim % 2:
            unsupported(config, "head_dim", "rotary positions need heads of an even width")
        return n_head, n_kv_head, head_dim

    def _activation(self, config: Fields) -> str:
        found = activation(config, "hidden_act", self.activation)
        if not self.legacy_gelu:
            return found
        found = "gelu_tanh" if found == "gelu" else found
        if config.get("hidden_activation", None) and activation(config, "hidden_activation", "") != found:
            unsupported(config, "hidden_activation", "`hidden_act` says another")
        return found

    def _window(self, config: Fields) -> int | None:
        """Tokens that each sees. NeuralError N865 for some layers with a window and others without."""
        if self.window == "all":
            return config.size("sliding_window", None)
        if self.window == "" or not config.flag("use_sliding_window", False):
            return None
        layers = config.size("num_hidden_layers", largest=MOST_LAYERS)
        first = config.size("max_window_layers", 28, least=0)
        kinds = config.get("layer_types", None)
        sliding = (
            [k == "sliding_attention" for k in kinds]
            if isinstance(kinds, list)
            else [i >= first for i in range(layers)]
        )
        if any(sliding) and not all(sliding):
            unsupported(
                config, "layer_types" if kinds else "max_window_layers", "only some of the layers have a window"
            )
        return config.size("sliding_window") if all(sliding) else None

    def config(self, decoder: Decoder) -> dict[str, Any]:
        d = decoder
        fields = self.common(d) | {
            "hidden_size": d.d_model,
            "intermediate_size": d.d_ff,
            "num_hidden_layers": d.n_layer,
            "num_attention_heads": d.n_head,
            "num_key_value_heads": d.n_kv_head,
            "max_position_embeddings": d.context,
            "rms_norm_eps": d.epsilon,
            "hidden_act": theirs(d.activation),
            "attention_dropout": d.dropout,
            **(rotary_config(d.rope) if d.rope else {}),
        }
        if self.head_dim is not None or d.head_dim * d.n_head != d.d_model:
            fields["head_dim"] = d.head_dim
        if self.qkv_bias is None:
            fields["attention_bias"] = d.qkv_bias
        if self.mlp_bias is None:
            fields["mlp_bias"] = d.mlp_bias
        return fields | self._window_config(d)

    def _window_config(self, d: Decoder) -> dict[str, Any]:
        if self.window == "all":
            return {"sliding_window": d.window}
        if self.window == "":
            return {}
        kind = "full_attention" if d.window is None else "sliding_attention"
        return {
            "use_sliding_window": d.window is not None,
            "sliding_window": d.window,
            "max_window_layers": d.n_layer if d.window is None else 0,
            "layer_types": [kind] * d.n_layer,
        }

    def filled(self, decoder: Decoder) -> Decoder:
        return replace(decoder, qkv_bias=True) if self.qkv_bias else decoder

    def tensors(self, decoder: Decoder) -> Iterator[Tensor]:
        d = decoder
        biased = dict.fromkeys(("q", "k", "v"), d.qkv_bias) | {"out": d.out_bias}
        biased |= dict.fromkeys(("gate", "up", "down"), d.mlp_bias)
        yield Tensor("model.embed_tokens.weight", ("tokens.weight",))
        for i in range(d.n_layer):
            for ours, its in _NAMES:
                if ours in ("q_norm", "k_norm") and not d.qk_norm:
                    continue
                offset = self.norm_offset if ours in ("norm_1", "norm_2") else 0.0
                yield Tensor(f"model.layers.{i}.{its}.weight", (f"blocks.{i}.{ours}.weight",), offset=offset)
                if biased.get(ours):
                    yield Tensor(f"model.layers.{i}.{its}.bias", (f"blocks.{i}.{ours}.bias",))
        yield Tensor("model.norm.weight", ("norm.weight",), offset=self.norm_offset)
        if not d.tied:
            yield Tensor("lm_head.weight", ("head.weight",))


LLAMA = LlamaLike("llama", "LlamaForCausalLM")
MISTRAL = LlamaLike(
    "mistral", "MistralForCausalLM", qkv_bias=False, out_bias=False, mlp_bias=False, kv_head=MISSING, window="all"
)
QWEN2 = LlamaLike(
    "qwen2", "Qwen2ForCausalLM", qkv_bias=True, out_bias=False, mlp_bias=False, kv_head=MISSING, window="layers"
)
QWEN3 = LlamaLike(
    "qwen3", "Qwen3ForCausalLM", mlp_bias=False, kv_head=MISSING, head_dim=128, window="layers", qk_norm=True
)
GEMMA = LlamaLike(
    "gemma",
    "GemmaForCausalLM",
    mlp_bias=False,
    kv_head=MISSING,
    head_dim=256,
    tied=True,
    activation="gelu_pytorch_tanh",
    legacy_gelu=True,
    embedding_scaled=True,
    norm_offset=1.0,
)
