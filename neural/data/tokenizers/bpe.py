"""A byte-level BPE learned from the user's own text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

from neural.data.corpus import Corpus
from neural.data.progress import byte_progress
from neural.data.tokenizers.layout import EOT, byte_alphabet, byte_level_bpe
from neural.data.tokenizers.tokenizer import Tokenizer
from neural.diagnostics.diagnostic import fail

SMALLEST = 257
LARGEST = 1 << 20
_LEAST_COUNT = 2  # a pair that occurs once is not worth a token


def train_bpe(corpus: Corpus, vocab_size: int, *, progress: bool = False) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) with GPT-2's pattern, learned from a corpus.

    The ids: the 256 bytes in GPT-2's order, the merged pairs in the order in which they were learned, end of text
    last. The same corpus gives the same tokenizer, whatever the number of cores. A small corpus may run out of pairs
    that occur twice; then the vocabulary is smaller than `vocab_size`.
    `progress`: a bar on stderr. NeuralError N759 for a size out of range, N762 where the library tokenizers is
    missing, and those of the corpus.
    """
    if not SMALLEST <= vocab_size <= LARGEST:
        _out_of_range(vocab_size)
    try:
        from tokenizers import Tokenizer as Engine
        from tokenizers import models, pre_tokenizers, trainers
    except ImportError:
        fail("N762", "learning a BPE needs the package tokenizers", hint="run: pip install 'neural-dsl[torch]'")
    alphabet = list(byte_alphabet().values())
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # end of text is added below
        min_frequency=_LEAST_COUNT,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    with byte_progress("learning tokens", corpus.n_bytes, enabled=progress) as advance:

        def texts() -> Iterator[str]:
            for piece in corpus.pieces(advance=advance):
                yield piece.text

        engine.train_from_iterator(texts(), trainer)
    merges = [list(pair) for pair in json.loads(engine.to_str())["model"]["merges"]]
    tokens = dict.fromkeys([*alphabet, *(left + right for left, right in merges)])  # two pairs may give one token
    vocabulary = {token: i for i, token in enumerate(tokens)}
    layout = byte_level_bpe(vocabulary, merges, {EOT: len(vocabulary)})
    return Tokenizer(layout, f"a BPE learned from {corpus.spec}")


def _out_of_range(vocab_size: int) -> NoReturn:
    fail(
        "N759",
        f"a byte-level BPE has {SMALLEST} to {LARGEST:,} tokens, not {vocab_size:,}",
        hint="256 bytes and end of text are always among them; 4096 suits a few megabytes of text"
        if vocab_size < SMALLEST
        else "give a smaller --vocab-size",
    )
