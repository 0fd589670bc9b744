"""Parameters and FLOPs, against published numbers, PyTorch's own count and closed forms."""

from __future__ import annotations

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neural.compiler import load
from neural.planning.plan import Part, plan
from tests.planning.programs import CONTEXT, GPT2, LLAMA, batch_of, classifier, example, features, module_of, tokens

SIZES = {
    "small": ({}, 124_439_808),
    "medium": ({"n_layer": 24, "d_model": 1024, "n_head": 16}, 354_823_168),
    "large": ({"n_layer": 36, "d_model": 1280, "n_head": 20}, 774_030_080),
    "xl": ({"n_layer": 48, "d_model": 1600, "n_head": 25}, 1_557_611_200),
    "gpt3": ({"n_layer": 96, "d_model": 12288, "n_head": 96, "context": 2048}, 174_604_259_328),
}


@pytest.mark.parametrize(("sets", "expected"), SIZES.values(), ids=SIZES)
def test_the_family_of_gpt2_has_its_published_sizes(sets: dict, expected: int) -> None:
    program = load("examples/gpt2.neural", sets)
    made = plan(program)
    assert made.parameters == expected == program.parameter_count
    assert made.embedding_parameters == (50257 + made.context) * sets.get("d_model", 768)
    assert made.parameters == made.embedding_parameters + made.non_embedding_parameters


@pytest.mark.parametrize(("sets", "_expected"), SIZES.values(), ids=SIZES)
def test_flops_are_those_of_the_closed_form(sets: dict, _expected: int) -> None:
    """2 for each number of a matrix, and 4 n_layer d_model T of attention (Chowdhery et al. 2022, appendix B)."""
    made = plan(load("examples/gpt2.neural", sets))
    layers, width = sets.get("n_layer", 12), sets.get("d_model", 768)
    matrices = 12 * layers * width**2 + 50257 * width
    assert made.flops_per_token == 2 * matrices + 4 * layers * width * made.context
    assert made.flops_per_token_training == 3 * made.flops_per_token


PROGRAMS = {
    "gpt2": lambda: example("gpt2", **GPT2),
    "gpt2 with dropout": lambda: example("gpt2", **GPT2, dropout=0.2),
    "gpt2, wide and deep": lambda: example("gpt2", **GPT2 | {"n_layer": 5, "d_model": 128}),
    "llama": lambda: example("llama", **LLAMA),
    "llama, one kv head": lambda: example("llama", **LLAMA | {"n_kv_head": 1, "n_layer": 3}),
    "shakespeare": lambda: load("examples/shakespeare_char.neural", {"vocab_size": 65}),
    "classifier": classifier,
    "multilayer perceptron": lambda: features('Dense(96, activation="relu") Dense(10)'),
    "three axes": lambda: features("Dense(96) Flatten() Dense(10)", "(7, 48)"),
    "flattened tokens": lambda: tokens("Flatten() Dense(5)"),
}


@pytest.mark.parametrize("make", PROGRAMS.values(), ids=PROGRAMS)
def test_flops_are_those_that_pytorch_counts(make) -> None:
    """Its counter knows products and attention that is made of them. The forward pass is exact to the operation."""
    program = make()
    module, x, made = module_of(program), batch_of(program), plan(program)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = module(x)
        forward = counter.get_total_flops()
        output.sum().backward()
    rows = x.numel() if x.dtype.is_floating_point is False else len(x)
    assert made.flops_per_token == forward // rows
    read_numbers = x.is_floating_point()  # which need no gradient: the first layer does less
    assert counter.get_total_flops() == pytest.approx(3 * forward, rel=0.5 if read_numbers else 1e-9)


def test_a_shorter_context_saves_attention_alone() -> None:
    program = example("gpt2", **GPT2)
    long, short = plan(program), plan(program, context=CONTEXT // 2)
    assert long.flops_per_token - short.flops_per_token == 4 * 2 * 48 * CONTEXT // 2
    module, x = module_of(program), batch_of(program, length=CONTEXT // 2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x)
    assert short.flops_per_token == counter.get_total_flops() // x.numel()


def test_a_window_limits_what_a_query_meets() -> None:
    whole = plan(tokens("MultiHeadAttention(num_heads=4, causal=true)")).flops_per_token
    near = plan(tokens("MultiHeadAttention(num_heads=4, causal=true, window=16)")).flops_per_token
    assert whole - near == 4 * 48 * (CONTEXT - 16)


@pytest.mark.parametrize("make", [PROGRAMS["gpt2"], PROGRAMS["llama"], PROGRAMS["classifier"]])
def test_parts_add_up(make) -> None:
    program = make()
    made = plan(program)
    assert sum(p.parameters for p in made.parts) == made.parameters == program.parameter_count
    assert sum(p.flops for p in made.parts) // made.context == made.flops_per_token
    assert sum(p.activations for p in made.parts) == made.training.activations

    def check(part: Part) -> None:
        if part.parts:
            assert sum(p.parameters for p in part.parts) == part.parameters
            assert sum(p.flops for p in part.parts) == part.flops
            assert sum(p.activations for p in part.parts) <= part.activations
        for inner in part.parts:
            check(inner)

    for part in made.parts:
        check(part)


def test_the_parameters_are_those_of_the_module() -> None:
    for make in PROGRAMS.values():
        program = make()
        assert plan(program).parameters == sum(p.numel() for p in module_of(program).parameters())
