"""A message in the form that a model was taught, against transformers' own rendering and encoding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from neural.data.tokenizers import load_tokenizer
from neural.data.tokenizers.layout import byte_alphabet, byte_level_bpe
from neural.diagnostics.diagnostic import NeuralError
from neural.generation.chat import converse
from neural.generation.generate import encode_prompt
from neural.generation.tasks import parse_task
from neural.interop.decoder import Vocabulary

SPECIALS = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
CHATML = """\
{%- if bos_token %}{{ bos_token }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
OPENED = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [256], "tokens": ["<|endoftext|>"]}},
}


def tokenizer_file(folder: Path, *, opened: bool) -> Path:
    layout = byte_level_bpe({c: i for i, c in enumerate(byte_alphabet().values())}, [], SPECIALS)
    layout["post_processor"] = OPENED if opened else None
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(layout))
    return path


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("message", ["What is the capital of France?", "", "émoji 🙂\n\nand lines", " {{ 7 * 7 }} "])
def test_the_prompt_is_that_of_transformers(tmp_path: Path, opened: bool, message: str) -> None:
    path = tokenizer_file(tmp_path, opened=opened)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<|endoftext|>" if opened else None)
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": message}], chat_template=CHATML, add_generation_prompt=True, return_dict=False
    )
    found = converse(load_tokenizer(str(path)), Vocabulary("", 256 if opened else None, chat_template=CHATML), message)
    assert found.prompt == expected
    assert found.ends == (258,)


def test_a_plain_prompt_begins_as_the_model_expects(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_file(tmp_path, opened=True)))
    assert tokenizer.opening == (256,)
    assert encode_prompt(tokenizer, "ab", 8, None) == [256, *tokenizer.encode("ab")]
    assert encode_prompt(load_tokenizer(str(tokenizer_file(tmp_path, opened=False))), "ab", 8, None)[0] != 256


@pytest.mark.parametrize(
    "template",
    [
        "{{ broken",
        "{{ raise_exception('no') }}",
        "{{ messages[0].nothing.more }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_that_do_not_work_or_reach_out_are_refused(tmp_path: Path, template: str) -> None:
    tokenizer = load_tokenizer(str(tokenizer_file(tmp_path, opened=False)))
    with pytest.raises(NeuralError) as error:
        converse(tokenizer, Vocabulary("", chat_template=template), "hello")
    assert [d.code for d in error.value.diagnostics] == ["N919"]


def test_a_text_ends_where_its_model_ends_it_however_it_is_asked_for(tmp_path: Path) -> None:
    plain = load_tokenizer(str(tokenizer_file(tmp_path, opened=False)))
    taught = plain.ending_also(258)
    assert (plain.ends, taught.ends) == ({256}, {256, 258})
    asked = {"max_new_tokens": 8, "num_samples": 1, "seed": 0}
    for tokenizer in (plain, taught):
        task = parse_task(1, b'{"prompt": "ab"}', asked, tokenizer, 32, None)
        assert task.requests[0].ends == tokenizer.ends
        assert task.continuations[0].push(258) == ""
        assert task.done == (258 in tokenizer.ends)
