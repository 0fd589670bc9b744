"""What a network says about its training and use, resolved to plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

Scalar = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """A named thing with its arguments, defaults filled in: an optimizer, a schedule."""

    name: str
    arguments: dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class Train:
    """The `train { … }` section."""

    steps: int | None = None  # optimizer steps; else `epochs` over the data
    epochs: float | None = None
    batch_size: int = 8  # sequences in one forward pass
    gradient_accumulation: int = 1  # forward passes in one optimizer step
    gradient_clip: float | None = None  # largest global norm of the gradient
    skip_spikes: bool = False  # leave out a step whose loss or gradient stands far above those before it
    validation_split: float = 0.1  # the share of the tokens, at the end, that is held out
    eval_every: int = 250  # steps between looks at the validation loss
    eval_batches: int = 20
    sample_every: int = 500  # steps between sample texts; 0 is never
    save_every: int = 500  # steps between checkpoints
    keep_checkpoints: int = 2  # the newest so many, and the best
    log_every: int = 10
    seed: int = 1337


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections of a network but `input` and `layers`."""

    loss: str | None = None
    optimizer: Choice = field(default_factory=lambda: Choice("AdamW", {}))
    lr_schedule: Choice | None = None  # None: constant
    metrics: tuple[str, ...] = ()
    tokenizer: str | None = None
    data: str | None = None
    weights: str | None = None  # a file that training starts from
    train: Train = field(default_factory=Train)
    execution: dict[str, Scalar] = field(default_factory=dict)
