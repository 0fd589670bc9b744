"""Text for quantisation: some to calibrate on, and other text to measure what was lost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neural.data.corpus import Corpus, open_corpus
from neural.data.shards import TokenStore, is_store, open_shards
from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.training.quantized import TextRecord
from neural.training.run import Run, require_same_tokenizer

CALIBRATED = 16384  # tokens, spread over the text: what GPTQ looks at
MEASURED = 16384  # tokens, spread over other text
LONGEST = 512  # tokens a window: as long a context as the memory for logits allows
FEWEST = 256  # tokens: less says nothing
READ = 2**22  # characters of a text that are read for it
HELD_BACK = 5  # of a text that is to do for both, the last fifth is measured


@dataclass(frozen=True, slots=True)
class Windows:
    """Stretches of a text, int64 (n, T), each read by itself."""

    ids: Tensor
    record: TextRecord

    def batches(self, tokens: int = 2 * LONGEST) -> tuple[Tensor, ...]:
        """Of about so many tokens each."""
        return self.ids.split(max(1, tokens // self.ids.shape[1]))


class Text(NamedTuple):
    """A stretch of tokens, and what the user calls it."""

    source: str
    ids: TokenStore | np.ndarray
    part: range

    @classmethod
    def whole(cls, source: str, ids: TokenStore | np.ndarray) -> Text:
        return cls(source, ids, range(len(ids)))

    def cut(self) -> tuple[Text, Text]:
        """To calibrate on, and to measure on."""
        at = len(self.part) - max(len(self.part) // HELD_BACK, min(FEWEST, len(self.part)))
        return self._replace(part=self.part[:at]), self._replace(part=self.part[at:])

    def windows(self, tokens: int, context: int, what: str) -> Windows:
        """About so many tokens in windows, spread evenly. NeuralError N992 where there are fewer than FEWEST."""
        length = min(context, LONGEST, len(self.part))
        if len(self.part) < FEWEST:
            fail(
                "N992",
                f"{self.source} gives {len(self.part):,} tokens to {what} on, and {FEWEST} are needed",
                hint="give longer text: some thousand words do well",
            )
        count = len(self.part) // length
        wanted = min(count, max(1, tokens // length))
        starts = self.part.start + np.linspace(0, count - 1, wanted).astype(np.int64) * length
        ids = np.stack([self.ids[start : start + length] for start in starts.tolist()]).astype(np.int64)
        digest = hashlib.sha256(ids.tobytes()).hexdigest()
        return Windows(torch.from_numpy(ids), TextRecord(self.source, ids.size, digest))


def choose(
    run: Run | None, tokenizer: Tokenizer, context: int, calibrate: str | None, data: str | None
) -> tuple[Windows | None, Windows]:
    """What to calibrate on, None where there is nothing, and what to measure on.

    calibrate, data: text or token shards, as the user names them. Without them: what the run was trained on, and what
    was held out from it. Nothing is measured on text that was calibrated on: of a text that is to do for both, the last
    fifth is held back. NeuralError N992 (too short), N998 (nothing to measure on), and those of text and shards.
    """
    given = None if calibrate is None else _tokens(calibrate, tokenizer)
    measured = None if data is None or data == calibrate else _tokens(data, tokenizer)
    if run is not None and (given is None or (measured is None and data is None)):
        given, measured = _of_run(run, given, measured)
    if measured is None:
        if given is None:
            fail(
                "N998",
                "there is no text to measure the perplexity on",
                hint="give some: --calibrate text.txt, of which a fifth is kept for it, or --data held_out.txt",
            )
        given, measured = given.cut()
    calibration = None if given is None else given.windows(CALIBRATED, context, "calibrate")
    return calibration, measured.windows(MEASURED, context, "measure")


def _of_run(run: Run, given: Text | None, measured: Text | None) -> tuple[Text | None, Text | None]:
    """With what the run has where nothing is given."""
    data, source = run.data, run.record.data.source
    training = Text(f"the training text, {source}", data.store, range(data.held_out.start))
    held_out = Text(f"the held-out text of {source}", data.store, data.held_out) if data.held_out else None
    return given or training, measured or held_out


def _tokens(spec: str, tokenizer: Tokenizer) -> Text:
    """Of text up to READ characters. NeuralError N853 for shards of another tokenizer, and those of the corpus."""
    folder = Path(spec).expanduser()
    if is_store(folder):
        store = open_shards(folder)
        require_same_tokenizer("the tokenizer of the model", tokenizer, f"the shards in {folder}", store)
        return Text.whole(spec, store)
    return Text.whole(spec, _encoded(open_corpus(spec), tokenizer))


def _encoded(corpus: Corpus, tokenizer: Tokenizer) -> np.ndarray:
    """The ids of its documents, with end of text between them where the tokenizer has it."""
    between = np.array([] if tokenizer.eot_id is None else [tokenizer.eot_id], np.uint32)
    parts: list[np.ndarray] = []
    read = 0
    for piece in corpus.pieces():
        parts += [between] if piece.first and parts else []
        parts += tokenizer.encode_batch([piece.text])
        read += len(piece.text)
        if read >= READ:
            break
    return np.concatenate(parts)
