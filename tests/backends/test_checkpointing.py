"""`execution { activation_checkpointing: true }`: the same numbers, with fewer activations kept."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.diagnostics.source import Source
from neural.verification import jax_peer, torch_peer
from neural.verification.job import make_job
from tests.parity.test_models import SMALL
from tests.planning.programs import saved_bytes

SIZES = {**SMALL["gpt2"], "dropout": 0.0}


def gpt2(asked: bool) -> Program:
    section = f"execution {{ activation_checkpointing: {str(asked).lower()} }}"
    text = Path("examples/gpt2.neural").read_text().replace('tokenizer: "gpt2"', section)
    return compile_source(Source("gpt2.neural", text), SIZES)


@pytest.mark.parametrize("peer", [jax_peer.Peer, torch_peer.Peer], ids=["jax", "pytorch"])
def test_gives_the_same(peer) -> None:
    job = make_job(gpt2(True), None, seed=1)
    asked, plain = (peer(gpt2(a), job.weights) for a in (True, False))
    for p in (asked, plain):
        p._model.train()  # without dropout it is the same
    gradients = [p.gradients(job.inputs, job.targets) for p in (asked, plain)]
    for name, gradient in gradients[1].items():
        np.testing.assert_allclose(gradients[0][name], gradient, atol=1e-6, err_msg=name)
    for p in (asked, plain):
        p._model.eval()
    np.testing.assert_array_equal(*(p.decode(job.inputs[0][:, :8], 20) for p in (asked, plain)))


@pytest.mark.parametrize("asked", [True, False])
def test_jax_checkpoints_each_block(asked: bool) -> None:
    module = load_module(gpt2(asked).source("jax"), "gpt2")
    structure, state = nnx.split(module.Gpt2(rngs=nnx.Rngs(0)))
    ids = jnp.zeros((1, 8), jnp.int32)
    program = jax.make_jaxpr(lambda state: module.loss_fn(nnx.merge(structure, state), ids, ids))(state)
    assert sum("remat" in e.primitive.name for e in program.eqns) == (SIZES["n_layer"] if asked else 0)


def test_pytorch_keeps_less() -> None:
    ids = torch.zeros(4, 32, dtype=torch.long)
    kept = []
    for asked in (True, False):
        model = load_module(gpt2(asked).source(), "gpt2").Gpt2().train()
        kept.append(saved_bytes(model, lambda model=model: model(ids)))
    assert kept[0] < 0.5 * kept[1]
