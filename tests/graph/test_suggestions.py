"""What was meant: an unknown name is an error with a suggestion, and the suggestion is a fix."""

from __future__ import annotations

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.diagnostics.render import apply_fixes
from neural.graph.sections import EXECUTION, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, SECTIONS, TRAIN
from neural.graph.suggestions import ELSEWHERE, meant
from neural.layers import REGISTRY
from neural.layers.arguments import parameters
from neural.layers.attention import Attention
from neural.layers.multi_head import MultiHeadAttention
from neural.layers.rotary import Rope
from tests.graph.programs import codes, compiled, network

ROWS = [
    ("layer", network("Dens(4)"), "`Dense`"),
    ("layer, another case", network("dense(4)"), "`Dense`"),
    ("layer of PyTorch", network("Linear(4)"), "`Dense`"),
    ("layer of PyTorch", network("LayerNorm() Dense(4)"), "`LayerNormalization`"),
    ("define", network("Blok(4)", before="define Block(n) { Dense($n) }"), "`Block`"),
    ("argument", network("Dense(unit=4)"), "`units`"),
    ("argument of PyTorch", network("Dropout(p=0.1) Dense(4)"), "`rate`"),
    ("argument of a define", network("Block(widht=4)", before="define Block(width) { Dense($width) }"), "`width`"),
    ("parameter", network("Dense($widht)", before="param width = 4"), "`$width`"),
    ("parameter, bare", network("Dense(units=widht)", before="param width = 4"), "`width`"),
    ("value", network("query = Dense(16) Add(qurey, input) Dense(query, 4)"), "`query`"),
    ("tie", network("table = Dense(16) Dense(16, tied_to=tabel)"), "`table`"),
    ("activation", network('Dense(4, activation="rleu")'), '"relu"'),
    ("activation of Hugging Face", network('Dense(4, activation="gelu_new")'), '"gelu_tanh"'),
    ("string without quotes", network("Dense(4, activation=relu)"), '"relu"'),
    ("section", network("Dense(4)", sections='los: "mean_squared_error"'), "`loss`"),
    ("loss", network("Dense(4)", sections='loss: "mean_square_error"'), '"mean_squared_error"'),
    ("loss of scikit-learn", network("Dense(4)", sections='loss: "mse"'), '"mean_squared_error"'),
    ("optimizer", network("Dense(4)", sections="optimizer: AdmaW()"), "`AdamW`"),
    ("argument of an optimizer", network("Dense(4)", sections="optimizer: AdamW(lr=1e-3)"), "`learning_rate`"),
    ("schedule", network("Dense(4)", sections="lr_schedule: CosinDecay()"), "`CosineDecay`"),
    ("metric", network("Dense(4)", sections='metrics: ["acuracy"]'), '"accuracy"'),
    ("train key", network("Dense(4)", sections="train { bacth_size: 4 }"), "`batch_size`"),
    ("execution key", network("Dense(4)", sections='execution { devise: "cpu" }'), "`device`"),
    ("device", network("Dense(4)", sections='execution { device: "gpu" }'), '"cuda"'),
    ("choice", "param x = HPO(chioce(1, 2))" + network("Dense(4)"), "`choice`"),
]


@pytest.mark.parametrize(("what", "text", "meant_by_it"), ROWS, ids=[r[0] for r in ROWS])
def test_a_slip_is_told_with_what_was_meant_and_mended(what: str, text: str, meant_by_it: str) -> None:
    with pytest.raises(NeuralError) as caught:
        compiled(text)
    (found,) = [d for d in caught.value.diagnostics if d.fix]
    assert meant_by_it in found.primary.text
    assert found.fix.title == f"write {meant_by_it}"
    assert not found.fix.safe  # it is a guess, so `--fix` leaves it to the author
    assert found.code not in codes(apply_fixes(text, [found.fix]))


@pytest.mark.parametrize(
    "text", [network("Frobnicate(4)"), network("Dense(zzz=4)"), network("Dense(4)", sections='loss: "zzz"')]
)
def test_a_name_that_is_near_nothing_lists_what_there_is_or_what_to_do(text: str) -> None:
    with pytest.raises(NeuralError) as caught:
        compiled(text)
    assert all(d.fix is None and d.hint for d in caught.value.diagnostics)


def test_what_things_are_called_elsewhere_leads_to_things_that_exist() -> None:
    here = {*REGISTRY, *LOSSES, *METRICS, *OPTIMIZERS, *SCHEDULES, *SECTIONS, *(p.name for p in (*TRAIN, *EXECUTION))}
    for cls in (*REGISTRY.values(), *OPTIMIZERS.values(), *SCHEDULES.values(), Rope):
        here |= {p.name for p in parameters(cls)} | {c for p in parameters(cls) for c in p.kind.choices}
    here |= {c for p in EXECUTION for c in p.kind.choices}
    assert set(ELSEWHERE.values()) <= here
    assert not {name for name in ELSEWHERE if name in here} - {"linear"}  # an activation too
    assert meant("gpu", ["cpu", "cuda"]) == "cuda"
    assert meant("gpu", ["cpu"]) == "cpu"


def test_multi_head_attention_takes_what_attention_takes() -> None:
    names = {p.name for p in parameters(Attention)}
    assert names | {"use_bias", "key_dim"} == {p.name for p in parameters(MultiHeadAttention)}
