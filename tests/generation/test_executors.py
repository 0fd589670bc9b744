"""Every executor against PyTorch: the same texts, whatever joins, leaves and is guessed; and how one is chosen."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from neural.backends.module import load_module
from neural.compiler import Program, compile_source
from neural.data.tokenizers import load_tokenizer
from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.source import Source
from neural.generation import executors
from neural.generation.beams import beam_search
from neural.generation.engine import Engine
from neural.generation.executors import KINDS, choose_executor
from neural.generation.request import Limits
from neural.generation.scoring import score
from neural.training.trained import Trained
from tests.generation.conftest import EXAMPLES, SIZES
from tests.generation.test_engine import ids, random_request, run

CONTEXT = 48
OTHERS = [name for name in KINDS if name != "torch"]


def program(name: str) -> Program:
    """For byte tokens; "window" is a Llama whose attention looks 7 tokens back."""
    path = EXAMPLES / f"{'llama' if name == 'window' else name}.neural"
    text = path.read_text().replace('tokenizer: "gpt2"', 'tokenizer: "byte"')
    if name == "window":
        text = text.replace("causal=true", "causal=true, window=7")
    sets = SIZES["llama" if name == "window" else name]
    return compile_source(Source(str(path), text), {"vocab_size": 257, "context": CONTEXT, **sets})


@pytest.fixture(scope="module", params=["gpt2", "window"])
def trained(request: pytest.FixtureRequest) -> Trained:
    return made(request.param)


def made(name: str) -> Trained:
    """With weights that make texts of many tokens."""
    of = program(name)
    model = getattr(load_module(of.source("pytorch"), of.name), of.name)()
    rng = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3, generator=rng)
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return Trained(of, load_tokenizer("byte"), None, {}, load=lambda: model.eval(), read=lambda: own)


def engine(trained: Trained, name: str, **limits: int) -> Engine:
    return Engine(choose_executor(trained, name).open(Limits(**limits)))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "limits",
    [
        {"slots": 5, "prefill_tokens": 7},
        {"slots": 6, "prefix_bytes": 1 << 20},
        {"slots": 4, "draft_tokens": 3},
    ],
    ids=lambda limits: "-".join(limits),
)
def test_texts_are_those_of_torch(trained: Trained, name: str, limits: dict[str, int]) -> None:
    rng = random.Random(3)
    requests = [random_request(rng) for _ in range(16)]
    expected = [ids(events) for events in run(engine(trained, "torch", slots=8), requests)]
    other = engine(trained, name, **limits)
    assert [ids(events) for events in run(other, requests)] == expected
    kept = other.nbytes if name == "compiled" else 0  # its rectangle
    assert other.nbytes - kept <= limits.get("prefix_bytes", 0)  # no row is left


@pytest.mark.parametrize("name", OTHERS)
def test_beams_and_scores_are_those_of_torch(trained: Trained, name: str) -> None:
    def found(name: str):
        executor = choose_executor(trained, name).open(Limits(slots=4))
        return beam_search(executor, (3, 1, 4, 1, 5), max_new_tokens=20, beams=4, n_best=4, ends=frozenset(range(9)))

    for ours, theirs in zip(found(name), found("torch"), strict=True):
        assert ours.ids == theirs.ids
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    reports = [
        score(choose_executor(trained, n).open(Limits(slots=1)), trained.tokenizer, ["to be, or not to be" * 9, "x"])
        for n in (name, "torch")
    ]
    assert reports[0].whole.nats == pytest.approx(reports[1].whole.nats, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "compiled"])
@pytest.mark.parametrize(("width", "largest"), [("int8", 0.1), ("int4", 1.0)])
def test_quantised_logits_are_near(trained: Trained, name: str, width: str, largest: float) -> None:
    def after_prompt(width: str | None) -> torch.Tensor:
        executor = choose_executor(trained, name, width).open(Limits(slots=1))
        executor.begin([5, 6, 7])
        executor.read([5, 6, 7])
        return executor.join().log_softmax(-1)

    difference = (after_prompt(width) - after_prompt(None)).abs()
    assert 0 < difference.mean() < largest


@pytest.mark.parametrize("name", OTHERS)
@torch.inference_mode()
def test_a_failed_read_leaves_the_batch_as_it_was(trained: Trained, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__) -> None:
        raise MemoryError

    executor = choose_executor(trained, name).open(Limits(slots=2))
    executor.begin([1, 2])
    executor.read([1, 2])
    executor.join()
    before = executor.decode([[3]]).clone()
    executor.commit([0])
    executor.begin([1, 2, 4, 5])
    with monkeypatch.context() as patched:
        if name == "compiled":
            patched.setattr(executor, "_model", fail)
        else:
            patched.setattr(executor._program if name == "native" else executor._prompt, "run", fail)
        with pytest.raises(MemoryError):
            executor.read([4, 5])
    assert executor.begin([1, 2, 4, 5]) == 0
    torch.testing.assert_close(executor.decode([[3]]), before)


@pytest.mark.parametrize(
    ("code", "name", "width"), [("N966", "gpu", None), ("N968", "torch", "int8"), ("N969", "auto", "int3")]
)
def test_refused_when_it_is_chosen(trained: Trained, code: str, name: str, width: str | None) -> None:
    with pytest.raises(NeuralError, match=code):
        choose_executor(trained, name, width)


def test_what_is_not_installed_is_said_and_auto_takes_another(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_executor(trained).name == "native"
    monkeypatch.setattr(executors, "find_spec", lambda package: None)
    monkeypatch.setenv("PATH", "")  # no compiler
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(NeuralError, match=f"N967: the engine {name} needs {name}") as refused:
            choose_executor(trained, name)
        assert "pip install 'neural-dsl[" in refused.value.diagnostics[0].hint
    with pytest.raises(NeuralError, match="N970"):
        choose_executor(trained, "native")
    assert choose_executor(trained).name == "torch"
    with pytest.raises(NeuralError, match="N967"):
        choose_executor(trained, "auto", "int8")


def test_openvino_reports_nothing() -> None:
    choose_executor(made("gpt2"), "openvino").open(Limits(slots=1))
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_bfloat16_is_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is refused. Logits are those of float32, to the rounding of its 8 bits."""
    monkeypatch.setattr(executors, "silicon", lambda _: ())
    trained = made("gpt2")
    with pytest.raises(NeuralError, match="N968: this cpu has no products in bfloat16"):
        choose_executor(trained, "torch", "bfloat16")
    with pytest.raises(NeuralError, match="N968: the engine onnxruntime has no products in bfloat16"):
        choose_executor(trained, "onnxruntime", "bfloat16")
    monkeypatch.setattr(executors, "silicon", lambda _: ("bfloat16",))
    found = []
    for width in (None, "bfloat16"):
        chosen = choose_executor(made("gpt2"), "auto" if width else "torch", width)
        executor = chosen.open(Limits(slots=2))
        with torch.inference_mode():
            executor.reserve(1, 8)
            executor.begin([1, 2, 3])
            executor.read([1, 2, 3])
            found.append(executor.join())
    assert chosen.name == "torch" and found[1].dtype == torch.bfloat16
    assert (found[1].float() - found[0]).abs().max() < 0.1 * found[0].std()
