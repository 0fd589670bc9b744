"""A message to a model that was trained to answer: its chat template, a Jinja text, makes the prompt of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from neural.data.tokenizers import Tokenizer
from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Vocabulary

_ANSWER = "the answer stands here"


class Conversation(NamedTuple):
    """prompt: ids up to where the answer begins. ends: ids that end an answer."""

    prompt: list[int]
    ends: tuple[int, ...]


def converse(tokenizer: Tokenizer, vocabulary: Vocabulary, message: str) -> Conversation:
    """The prompt of one message by a user. The template runs in Jinja's sandbox, as in Hugging Face's transformers.

    NeuralError N918 where there is no template, N919 for one that does not work.
    """
    template = vocabulary.chat_template
    if template is None:
        fail("N918", "the model has no chat template: it was not taught to answer messages", hint="leave out --chat")
    names = {"bos_token": _name(tokenizer, vocabulary.bos_id), "eos_token": _name(tokenizer, vocabulary.eos_id)}
    asked = [{"role": "user", "content": message}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    whole = _rendered(template, answered, names, opened=False)
    after = tokenizer.encode_marked(whole.rpartition(_ANSWER)[2])
    end = next((i for i in after if i in tokenizer.special_ids), None)  # what the template closes an answer with
    prompt = tokenizer.encode_marked(_rendered(template, asked, names, opened=True))
    return Conversation(prompt, () if end is None else (end,))


def _name(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.piece(token)


def _rendered(template: str, messages: list[dict[str, str]], names: dict[str, str], *, opened: bool) -> str:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=opened, **names)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        return fail("N919", f"the chat template does not work: {type(error).__name__}: {reason}")
