"""One line of a file of prompts: what it asks for, and what is written of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest
from neural.generation.constraint import constrain
from neural.generation.generate import Continuation, encode_prompt
from neural.generation.options import SamplingOptions
from neural.generation.request import Request

MOST_SAMPLES = 1000
OPTION_FIELDS = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "seed",
)  # fmt: skip
COUNTS = ("max_new_tokens", "min_new_tokens", "num_samples")
LISTS = ("stop", "bad_words", "allowed_words", "choices")
CONSTRAINTS = ("choices", "regex", "json_schema")
FIELDS = (*OPTION_FIELDS, *COUNTS, *LISTS, "id", "prompt", "logprobs", "logit_bias", "regex", "json_schema")


@dataclass(slots=True)
class Task:
    """A line's requests, one a sample, and the text of each as it comes."""

    number: int
    size: int  # bytes of the line
    prompt: str
    seed: int
    identifier: Any
    requests: list[Request]
    continuations: list[Continuation] = field(repr=False)

    @property
    def done(self) -> bool:
        return all(continuation.finish_reason is not None for continuation in self.continuations)

    def to_json(self) -> dict[str, Any]:
        """The line of the output."""
        named = {} if self.identifier is None else {"id": self.identifier}
        samples = [c.sample.to_json() for c in self.continuations]
        return {"line": self.number, **named, "prompt": self.prompt, "seed": self.seed, "samples": samples}


def parse_task(
    number: int,
    line: bytes,
    defaults: Mapping[str, Any],
    tokenizer: Tokenizer,
    context: int,
    truncate: Literal["left"] | None,
) -> Task:
    """A line, `{"prompt": …}` with any of FIELDS beside it, over `defaults`. Line n's seed is the default's + n - 1.

    Raises NeuralError N960 for what is no such object, and those of options, requests and prompts.
    """
    record = _record(line)
    if any(record.get(name) is not None for name in CONSTRAINTS):
        defaults = {name: value for name, value in defaults.items() if name not in CONSTRAINTS}
    asked = {**defaults, "seed": defaults["seed"] + number - 1, **record}
    _check_fields(asked)
    options = SamplingOptions(
        **{name: asked[name] for name in OPTION_FIELDS if name in asked},
        logit_bias=_bias(asked.get("logit_bias", {})),
        bad_words=tuple(tuple(ids) for word in asked.get("bad_words", ()) for ids in _spellings(tokenizer, word)),
        allowed=_allowed(tokenizer, asked.get("allowed_words")),
    )
    ids = encode_prompt(tokenizer, asked["prompt"], context, truncate)
    constraint = constrain(tokenizer, **{name: asked.get(name) for name in CONSTRAINTS})
    requests = [
        Request(
            ids,
            asked["max_new_tokens"],
            options,
            sample=i,
            ends=tokenizer.ends,
            min_new_tokens=asked.get("min_new_tokens", 0),
            logprobs=asked.get("logprobs"),
            constraint=constraint,
        )
        for i in range(asked["num_samples"])
    ]
    made = [Continuation(tokenizer, asked.get("stop", ()), asked["max_new_tokens"]) for _ in requests]
    return Task(number, len(line), asked["prompt"], asked["seed"], asked.get("id"), requests, made)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        fail("N960", f"not UTF-8: byte {error.start} is 0x{line[error.start]:02x}", hint="write the file as UTF-8")
    except json.JSONDecodeError as error:
        fail("N960", f"not JSON: {error.msg} at column {error.colno}", hint='write {"prompt": "…"} on each line')
    except (ValueError, RecursionError):
        fail("N960", "JSON with a number or nesting beyond all bounds", hint="mend or remove the line")
    if not isinstance(record, dict) or "prompt" not in record:
        fail("N960", "no object with a field `prompt`", hint='write {"prompt": "…"} on each line')
    unknown = next((name for name in record if name not in FIELDS), None)
    if unknown is not None:
        near = nearest(unknown, FIELDS)
        hint = f"did you mean `{near}`?" if near else f"known are {', '.join(FIELDS)}"
        fail("N960", f"there is no field `{unknown}`", hint=hint)
    return record


def _check_fields(asked: Mapping[str, Any]) -> None:
    """Types of what SamplingOptions does not check. NeuralError N960."""
    if not isinstance(asked["prompt"], str) or any("\ud800" <= c <= "\udfff" for c in asked["prompt"]):
        fail("N960", "`prompt` is not a text", hint='write {"prompt": "…"} on each line')
    for name in (*COUNTS, "logprobs"):
        value = asked.get(name, 0)
        if type(value) is not int and (name, value) != ("logprobs", None):
            fail("N960", f"`{name}` is {value!r}, and must be a whole number", hint=f'write "{name}": 8')
    if not 1 <= asked["num_samples"] <= MOST_SAMPLES:
        fail("N960", f"{asked['num_samples']} samples of one prompt", hint=f"ask for 1 to {MOST_SAMPLES}")
    if not isinstance(asked.get("regex"), str | None):
        fail("N960", "`regex` is not a text", hint='write "regex": "[0-9]+"')
    for name in LISTS:
        value = asked.get(name) or []
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            fail("N960", f"`{name}` is not a list of texts", hint=f'write "{name}": ["…", "…"]')


def _bias(given: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(given, dict) or not all(key.isascii() and key.isdigit() and len(key) < 10 for key in given):
        fail("N960", "`logit_bias` is not an object of ids and numbers", hint='write "logit_bias": {"50256": -100}')
    return tuple((int(key), value) for key, value in given.items())


def _spellings(tokenizer: Tokenizer, word: str) -> list[list[int]]:
    """A word's tokens at the beginning of a text and after a space, where the tokenizer knows them differently."""
    plain = tokenizer.encode(word)
    return [plain] if not word or word[0].isspace() else [plain, tokenizer.encode(f" {word}")]


def _allowed(tokenizer: Tokenizer, words: list[str] | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    ids = {token for word in words for spelling in _spellings(tokenizer, word) for token in spelling}
    return tuple(sorted(ids | tokenizer.ends)) if ids else ()
