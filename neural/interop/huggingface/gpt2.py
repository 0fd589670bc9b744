"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere, matrices stored as (in, out)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from neural.interop.decoder import Decoder
from neural.interop.fields import Fields
from neural.interop.huggingface.family import MOST_LAYERS, Family, Tensor, activation, theirs


class Gpt2(Family):
    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    base = "transformer."
    inert = Family.inert | {"scale_attn_by_inverse_layer_idx": (None, False)}

    def decoder(self, config: Fields) -> Decoder:
        self.refuse_unsupported(config)
        d_model, n_head = config.size("n_embd"), config.size("n_head")
        if d_model % n_head:
            config.refuse("n_head", f"a divisor of n_embd, {d_model},")
        rates = [config.number(f"{place}_pdrop", 0.1, zero=True) for place in ("resid", "embd", "attn")]
        return Decoder(
            vocab_size=config.size("vocab_size"),
            context=config.size("n_positions"),
            d_model=d_model,
            n_layer=config.size("n_layer", largest=MOST_LAYERS),
            n_head=n_head,
            n_kv_head=n_head,
            head_dim=d_model // n_head,
            d_ff=config.size("n_inner", 4 * d_model),
            norm="layer",
            epsilon=config.number("layer_norm_epsilon", 1e-5),
            activation=activation(config, "activation_function", "gelu_new"),
            gated=False,
            tied=config.flag("tie_word_embeddings", True),
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
            scale=None if config.flag("scale_attn_weights", True) or d_model == n_head else 1.0,
            dropout=max(rates),
        )

    def config(self, decoder: Decoder) -> dict[str, Any]:
        return self.common(decoder) | {
            "n_positions": decoder.context,
            "n_embd": decoder.d_model,
            "n_layer": decoder.n_layer,
            "n_head": decoder.n_head,
            "n_inner": None if decoder.d_ff == 4 * decoder.d_model else decoder.d_ff,
            "activation_function": theirs(decoder.activation, "gelu_new"),
            "layer_norm_epsilon": decoder.epsilon,
            "scale_attn_weights": decoder.scale is None,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), decoder.dropout),
        }

    def filled(self, decoder: Decoder) -> Decoder:
        return replace(decoder, qkv_bias=True, out_bias=True, mlp_bias=True)

    def tensors(self, decoder: Decoder) -> Iterator[Tensor]:
        yield Tensor("transformer.wte.weight", ("tokens.weight",))
        yield Tensor("transformer.wpe.weight", ("positions.weight",))
        for i in range(decoder.n_layer):
            ours, its = f"blocks.{i}.", f"transformer.h.{i}."
            for suffix, transposed in (("weight", True), ("bias", False)):
                yield Tensor(f"{its}ln_1.{suffix}", (f"{ours}norm_1.{suffix}",))
                yield Tensor(f"{its}attn.c_attn.{suffix}", tuple(f"{ours}{p}.{suffix}" for p in "qkv"), transposed)
                yield Tensor(f"{its}attn.c_proj.{suffix}", (f"{ours}out.{suffix}",), transposed)
                yield Tensor(f"{its}ln_2.{suffix}", (f"{ours}norm_2.{suffix}",))
                yield Tensor(f"{its}mlp.c_fc.{suffix}", (f"{ours}up.{suffix}",), transposed)
                yield Tensor(f"{its}mlp.c_proj.{suffix}", (f"{ours}down.{suffix}",), transposed)
        yield Tensor("transformer.ln_f.weight", ("norm.weight",))
        yield Tensor("transformer.ln_f.bias", ("norm.bias",))
        if not decoder.tied:
            yield Tensor("lm_head.weight", ("head.weight",))
