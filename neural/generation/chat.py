"""A message to a model that was trained to answer: its chat template, a Jinja text, makes the prompt of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail

_ANSWER = "the answer stands here"


class Conversation(NamedTuple):
    """prompt: ids up to where the answer begins. ends: ids that end an answer."""

    prompt: list[int]
    ends: tuple[int, ...]


def converse(tokenizer: Tokenizer, template: str, message: str) -> Conversation:
    """The prompt of one message by a user. The template runs in Jinja's sandbox, as in Hugging Face's transformers.

    NeuralError N919 for a template that does not work.
    """
    asked = [{"role": "user", "content": message}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    whole = _rendered(tokenizer, template, answered, opened=False)
    after = tokenizer.encode_marked(whole.rpartition(_ANSWER)[2])
    end = next((i for i in after if i in tokenizer.special_ids), None)  # what the template closes an answer with
    prompt = tokenizer.encode_marked(_rendered(tokenizer, template, asked, opened=True))
    return Conversation(prompt, () if end is None else (end,))


def _rendered(tokenizer: Tokenizer, template: str, messages: list[dict[str, str]], *, opened: bool) -> str:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    first = "".join(tokenizer.piece(i) for i in tokenizer.opening)
    last = "" if tokenizer.eot_id is None else tokenizer.piece(tokenizer.eot_id)
    given = {"messages": messages, "add_generation_prompt": opened, "bos_token": first, "eos_token": last}
    try:
        return environment.from_string(template).render(given)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        return fail("N919", f"the chat template does not work: {type(error).__name__}: {reason}")
