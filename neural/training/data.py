"""What a program trains on: which tokens, in which batches, for how many steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from neural.compiler import Program
from neural.data.loader import Batch, Batches, evaluation_batches, split
from neural.data.shards import TokenStore
from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The two sides of a token store under a program's `train { … }`."""

    store: TokenStore
    training: Batches
    held_out: range
    total_steps: int
    batch_size: int
    context: int

    def evaluation(self, limit: int) -> Iterator[Batch]:
        """At most `limit` batches, the same ones every time, spread over the tokens that are held out."""
        start, stop = self.held_out.start, self.held_out.stop
        return evaluation_batches(
            self.store, start, stop, context=self.context, batch_size=self.batch_size, limit=limit
        )


def training_data(program: Program, store: TokenStore, seed: int) -> TrainingData:
    """Split, batches and number of steps. NeuralError N712 or N713 if the tokens are too few for the context.

    `epochs` times the windows of an epoch, over the sequences of a step, is rounded up to whole steps.
    """
    train = program.settings.train
    training, held_out = split(store, train.validation_split, program.context)
    batches = Batches(
        store,
        training.start,
        training.stop,
        context=program.context,
        batch_size=train.batch_size,
        seed=seed,
    )
    steps = train.steps
    if steps is None:
        sequences = train.batch_size * train.gradient_accumulation
        steps = max(1, math.ceil(train.epochs * batches.windows_per_epoch / sequences))
    return TrainingData(store, batches, held_out, steps, train.batch_size, program.context)


def require_trainable(program: Program) -> None:
    """NeuralError for what the program alone says: N800 (no language model), N801 (no length)."""
    train = program.settings.train
    if program.vocab_size is None or program.context is None:
        fail(
            "N800",
            f"{program.name} is not a language model, and `neural train` trains those",
            notes=("a language model reads ids through an Embedding and gives logits as wide as its input_dim",),
            hint='end it with a Dense of the vocabulary\'s size, and write loss: "sparse_categorical_crossentropy"',
        )
    if train.steps is None and train.epochs is None:
        fail(
            "N801",
            f"{program.path} does not say how long to train {program.name}",
            hint="write into the network: train { steps: 2000 }, or epochs: 1 for each token once",
        )


def require_fitting_tokenizer(program: Program, tokenizer: Tokenizer) -> None:
    """NeuralError N803 for a tokenizer with more tokens than the model knows; fewer are no harm."""
    size, known = tokenizer.vocab_size, program.vocab_size
    if size > known:
        fail(
            "N803",
            f"the tokenizer has {size:,} tokens, and {program.name} knows {known:,}",
            notes=(f"it is {tokenizer!r}",),
            hint=f"make the Embedding's input_dim {size} (--set vocab_size={size}, where the file has that param), "
            "or take a smaller tokenizer",
        )
