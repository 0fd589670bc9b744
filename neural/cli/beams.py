"""`neural generate RUN --beams N`: the best texts that a search finds, instead of drawn ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neural.training.trained import Trained


def search(trained: Trained, prompt: str, asked: dict[str, Any], beams: int, length_penalty: float) -> dict[str, Any]:
    """The `num_samples` best continuations of a prompt, as `neural generate --json` tells of samples."""
    from neural.generation.beams import beam_search
    from neural.generation.generate import encode_prompt
    from neural.training.session import choose_device

    tokenizer, context = trained.tokenizer, trained.program.context
    found = beam_search(
        trained.model.to(choose_device("auto")),
        encode_prompt(tokenizer, prompt, context, None),
        context=context,
        vocab_size=tokenizer.vocab_size,
        max_new_tokens=asked["max_new_tokens"],
        beams=beams,
        n_best=asked["num_samples"],
        length_penalty=length_penalty,
        ends=frozenset({tokenizer.eot_id} - {None}),
    )
    samples = [
        {
            "text": tokenizer.decode([token for token in beam.ids if token != tokenizer.eot_id]),
            "ids": beam.ids,
            "finish_reason": "end_of_text" if beam.ended else "length",
            "logprob": beam.logprob,
            "score": beam.score,
        }
        for beam in found
    ]
    return {"prompt": prompt, "samples": samples}
