"""The sections of a network, and what they come to."""

from __future__ import annotations

import pytest

from neural.diagnostics.diagnostic import NeuralError
from neural.graph.sections import LOSSES, METRICS, SECTIONS
from neural.graph.settings import Choice, Train
from tests.graph.programs import codes, compiled, network, told

WHOLE = {
    "loss": '"sparse_categorical_crossentropy"',
    "optimizer": "AdamW(learning_rate=6e-4)",
    "lr_schedule": "CosineDecay(warmup_steps=10)",
    "metrics": '["accuracy", "perplexity"]',
    "tokenizer": '"char"',
    "data": '"shakespeare"',
    "weights": '"README.md"',  # a file that is there
    "train": "{ steps: 10 }",
    "execution": '{ device: "cpu" }',
}


def settings(sections: str, sets: dict[str, object] | None = None, before: str = ""):
    return compiled(network("Dense(4)", sections=sections, before=before), sets).settings


def test_sections_stand_in_any_order() -> None:
    sections = [f"{k}: {v}" for k, v in WHOLE.items()] + ["input: (16,)", "layers: Dense(4)"]
    forth = compiled("network N { " + "\n".join(sections) + " }")
    back = compiled("network N { " + "\n".join(reversed(sections)) + " }")
    assert forth.graph == back.graph
    assert forth.settings.metrics == ("accuracy", "perplexity")


@pytest.mark.parametrize("section", [s for s in SECTIONS if s not in ("input", "layers")])
def test_each_section_stands_at_most_once(section: str) -> None:
    text = network("Dense(4)", sections=f"{section}: {WHOLE[section]}\n  {section}: {WHOLE[section]}")
    assert told(text) == [("N502", section)]


def test_input_and_layers_stand_once_and_must_stand() -> None:
    assert codes("network N { input: (3,) input: (4,) layers: Dense(4) }") == ["N502"]
    assert codes('network N { input: (3,) layers: Dense(4) loss: "mean_squared_error" layers: Dense(4) }') == ["N502"]
    assert codes("network N { layers: Dense(4) }") == ["N512"]
    assert codes("network N { input: (3,) }") == ["N512"]
    assert codes("network N { input: (3,) layers: }") == ["N512"]
    assert codes("network N { }") == ["N512"]


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    assert settings(f'loss: "{name}"').loss == name


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name: str) -> None:
    assert settings(f'metrics: ["{name}"]').metrics == settings(f'metrics: "{name}"').metrics == (name,)


@pytest.mark.parametrize(
    ("written", "choice"),
    [
        ("AdamW(learning_rate=6e-4, beta_2=0.95)", Choice("AdamW", {"learning_rate": 6e-4, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-7, "weight_decay": 0.004})),
        ("Adam()", Choice("Adam", {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7})),
        ('"adam"', Choice("Adam", {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7})),
        ("SGD(0.1, 0.9)", Choice("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0})),
    ],
)  # fmt: skip
def test_optimizers_have_keras_defaults(written: str, choice: Choice) -> None:
    assert settings(f"optimizer: {written}").optimizer == choice


def test_a_schedule() -> None:
    found = settings("lr_schedule: CosineDecay(warmup_steps=10, min_learning_rate=1e-4)").lr_schedule
    assert found == Choice("CosineDecay", {"warmup_steps": 10, "min_learning_rate": 1e-4, "decay_steps": None})
    assert settings("").lr_schedule is None


def test_train_keys() -> None:
    found = settings("train { epochs: 1 batch_size: 8, validation_split: 0.05\n gradient_clip: 1.0 }").train
    assert found == Train(epochs=1, batch_size=8, validation_split=0.05, gradient_clip=1.0)
    assert settings("train: { steps: 3 }").train.steps == 3
    assert settings("train { gradient_clip: none }").train.gradient_clip is None


def test_sections_read_parameters() -> None:
    sections = "optimizer: AdamW(learning_rate=$rate) train { steps: 2 * $n batch_size: n } data: $corpus"
    before = 'param rate = 1e-4 param n = 5 param corpus = "a.txt"'
    found = settings(sections, {"n": 7}, before)
    assert (found.optimizer.arguments["learning_rate"], found.train.steps, found.train.batch_size, found.data) == (
        1e-4,
        14,
        7,
        "a.txt",
    )


REFUSED = [
    ("los: 3", "N501", "los"),
    ("epochs: 3", "N501", "epochs"),
    ('loss: "mse"', "N503", '"mse"'),
    ("loss: 3", "N503", "3"),
    ("loss: mean_squared_error", "N201", "mean_squared_error"),
    ("optimizer: AdmaW()", "N504", "AdmaW"),
    ('optimizer: "adamx"', "N504", '"adamx"'),
    ("optimizer: AdamW", "N504", "AdamW"),
    ("optimizer: 1e-3", "N504", "1e-3"),
    ("optimizer: Adam(weight_decay=0.1)", "N301", "weight_decay"),
    ("optimizer: Adam(learning_rate=0)", "N311", "0"),
    ("optimizer: Adam(beta_1=1)", "N311", "1"),
    ("optimizer: Adam(beta_2=none)", "N311", "none"),
    ("optimizer: SGD(nesterov=1)", "N311", "1"),
    ("lr_schedule: Linear()", "N505", "Linear"),
    ("lr_schedule: none", "N505", "none"),
    ("lr_schedule: CosineDecay(warmup_steps=-1)", "N311", "-1"),
    ('metrics: ["acuracy"]', "N506", '"acuracy"'),
    ("metrics: 3", "N506", "3"),
    ("tokenizer: 3", "N509", "3"),
    ("tokenizer: gpt2", "N201", "gpt2"),
    ('tokenizer: ""', "N509", '""'),
    ('data: ["a", "b"]', "N509", '["a", "b"]'),
    ("train: 3", "N510", "3"),
    ('execution: "cpu"', "N510", '"cpu"'),
    ("train { step: 3 }", "N511", "step"),
    ("train { learning_rate: 3 }", "N511", "learning_rate"),
    ("train { steps: 0 }", "N311", "0"),
    ("train { steps: 1.5 }", "N311", "1.5"),
    ("train { epochs: 0 }", "N311", "0"),
    ("train { batch_size: 0 }", "N311", "0"),
    ("train { validation_split: 1 }", "N311", "1"),
    ("train { gradient_clip: 0 }", "N311", "0"),
    ("train { seed: -1 }", "N311", "-1"),
    ("train { steps: 3 steps: 4 }", "N310", "steps: 4"),
    ("train { steps: 3 epochs: 4 }", "N507", "4"),
    ('execution { device: "gpu" }', "N311", '"gpu"'),
    ("execution { devices: 3 }", "N511", "devices"),
    ("optimizer: AdamW(learning_rate=1e-4) lr_schedule: CosineDecay(min_learning_rate=1e-3)", "N508", "1e-3"),
    ("lr_schedule: CosineDecay(min_learning_rate=1)", "N508", "1"),
]


@pytest.mark.parametrize(("sections", "code", "place"), REFUSED)
def test_sections_that_are_refused(sections: str, code: str, place: str) -> None:
    assert told(network("Dense(4)", sections=sections)) == [(code, place)]


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ("optimizer: AdamW", "write `AdamW()`"),
        ("optimizer: adamw", "write `AdamW()`"),
        ("lr_schedule: CosinDecay", "write `CosineDecay()`"),
        ("optimizer: RMSprop", "such as `AdamW()`"),
    ],
)
def test_a_name_that_is_no_call_is_told_how_to_write_it(section: str, hint: str) -> None:
    with pytest.raises(NeuralError) as refused:
        compiled(network("Dense(4)", sections=section))
    assert [d.hint for d in refused.value.diagnostics] == [hint]


def test_every_bad_metric_and_key_is_told() -> None:
    assert codes(network("Dense(4)", sections='metrics: ["a", "accuracy", "b"]')) == ["N506", "N506"]
    assert codes(network("Dense(4)", sections="train { a: 1 steps: 0 b: 2 seed: -3 }")) == [
        "N511",
        "N311",
        "N511",
        "N311",
    ]


# The head


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_a_choice_among_classes_needs_two(loss: str) -> None:
    assert told(network("Dense(1)", sections=f'loss: "{loss}"')) == [("N515", f'"{loss}"')]
    assert codes(network("Dense(2)", sections=f'loss: "{loss}"')) == []
    assert codes(network("Dense(1)", sections='loss: "binary_crossentropy"')) == []


def test_no_softmax_under_a_binary_loss() -> None:
    text = network('Dense(4, activation="softmax")', sections='loss: "binary_crossentropy"')
    assert codes(text) == ["N516"]
    text = network("Head(4)", before='define Head(n) { Dense($n, "sigmoid") }', sections='loss: "binary_crossentropy"')
    assert codes(text) == ["N516"]


@pytest.mark.parametrize("softmax", ['Activation("softmax")', 'Dense($n, activation="softmax")'])
def test_a_softmax_in_a_define_under_a_cross_entropy(softmax: str) -> None:
    before = f"define Head(n) {{ Dense($n) {softmax} }}"
    text = network("Head(4)", before=before, sections='loss: "sparse_categorical_crossentropy"')
    assert told(text) == [("N516", softmax)]
    assert codes(text.replace("sparse_categorical_crossentropy", "mean_squared_error")) == []


@pytest.mark.parametrize(
    ("tokenizer", "size", "right"),
    [("gpt2", 50256, False), ("gpt2", 50257, True), ("byte", 256, False), ("byte", 257, True), ("char", 5, True)],
)
def test_a_tokenizer_has_no_more_ids_than_the_vocabulary(tokenizer: str, size: int, right: bool) -> None:
    sections = f'loss: "sparse_categorical_crossentropy" tokenizer: "{tokenizer}"'
    assert codes(network(f"Embedding({size}, 4) Dense({size})", sections=sections)) == ([] if right else ["N514"])


def test_what_a_network_is() -> None:
    loss = 'loss: "sparse_categorical_crossentropy"'
    language = compiled(network("Embedding(100, 4) Dense(100)", sections=loss))
    assert (language.context, language.vocab_size) == (16, 100)
    classes = compiled(network("Embedding(100, 4) LastToken() Dense(3)", sections=loss))
    assert (classes.context, classes.vocab_size) == (16, None)
    plain = compiled(network("Dense(3)", sections=loss))
    assert (plain.context, plain.vocab_size) == (None, None)


def test_weights_are_named_in_quotes() -> None:
    """A file's name is written out, so that a run can hold the whole path."""
    assert told(network("Dense(4)", sections="weights: $x", before='param x = "README.md"')) == [("N312", "$x")]
    assert told(network("Dense(4)", sections="weights: 3")) == [("N509", "3")]
    assert settings('weights: "README.md"').weights == "README.md"
