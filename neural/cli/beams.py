"""`neural generate RUN --beams N`: the best texts that a search finds, instead of drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neural.generation.executors import Chosen
    from neural.training.trained import Trained


def search(
    trained: Trained, chosen: Chosen, prompt: str, start: str | Sequence[int], ends: tuple[int, ...],
    asked: dict[str, Any], beams: int, length_penalty: float,
) -> dict[str, Any]:  # fmt: skip
    """The `num_samples` best continuations of a prompt, as `neural generate --json` tells of samples.

    start: what the model reads for the prompt. ends: ids that end a text beside the tokenizer's.
    """
    from neural.generation.beams import MOST_BEAMS, beam_search
    from neural.generation.generate import encode_prompt
    from neural.generation.request import Limits

    tokenizer, context = trained.tokenizer, trained.program.context
    found = beam_search(
        chosen.open(Limits(slots=min(max(1, beams), MOST_BEAMS))),
        encode_prompt(tokenizer, start, context, None),
        max_new_tokens=asked["max_new_tokens"],
        beams=beams,
        n_best=asked["num_samples"],
        length_penalty=length_penalty,
        ends=tokenizer.ends | {*ends},
    )
    samples = [
        {
            "text": tokenizer.decode(beam.ids),
            "ids": beam.ids,
            "finish_reason": "end_of_text" if beam.ended else "length",
            "logprob": beam.logprob,
            "score": beam.score,
        }
        for beam in found
    ]
    return {"prompt": prompt, "samples": samples}
