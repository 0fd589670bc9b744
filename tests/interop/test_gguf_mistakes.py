"""Bad GGUF files, and models that have no equal in one: refused in our words, and nothing is left."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf as package
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neural.diagnostics.diagnostic import NeuralError
from neural.interop.decoder import Rotary
from neural.interop.gguf import frequencies, read, write
from tests.interop.gguf_models import LAYOUT, SMALL, random_checkpoint, rewritten, small, vocabulary, written

LLAMA_3 = Rotary(500000.0, "llama3", 8.0)


def refused(action: Callable[[], object]) -> tuple[str, str]:
    """The code and all the words of what is said."""
    with pytest.raises(NeuralError) as caught:
        action()
    (said,) = caught.value.diagnostics
    return said.code, " ".join((said.title, *said.notes, said.hint or ""))


def test_a_type_without_unpacking_is_refused_by_name(tmp_path: Path) -> None:
    def whole(tensor: str, array: np.ndarray):
        return (array.astype(np.int32), None) if tensor == "output_norm.weight" else (array, None)

    path = rewritten(written(small(), tmp_path), tmp_path / "i32.gguf", tensors=whole)
    code, words = refused(lambda: read(path))
    assert code == "N886"
    assert "output_norm.weight" in words
    assert "I32" in words


U32, F32, STRING, BOOL = (package.GGUFValueType[n] for n in ("UINT32", "FLOAT32", "STRING", "BOOL"))
KEYS = {
    "an architecture that is not known": ({"general.architecture": None}, "N883", "'mamba'"),
    "an adapter": ({"general.type": ("adapter", STRING)}, "N883", "'adapter'"),
    "one of several": ({"split.count": (3, package.GGUFValueType.UINT16)}, "N883", "llama-gguf-split"),
    "no blocks": ({"llama.block_count": (0, U32)}, "N884", "llama.block_count is 0"),
    "blocks without end": ({"llama.block_count": (2**31 - 1, U32)}, "N884", "cannot be made of"),
    "a word for a number": ({"llama.context_length": ("long", STRING)}, "N884", "llama.context_length is 'long'"),
    "a soft cap": ({"llama.attn_logit_softcapping": (50.0, F32)}, "N884", "attn_logit_softcapping is 50.0"),
    "experts": ({"llama.expert_count": (8, U32)}, "N884", "expert_count is 8"),
    "YaRN": ({"llama.rope.scaling.type": ("yarn", STRING)}, "N884", "'yarn'"),
    "a part of each head": ({"llama.rope.dimension_count": (8, U32)}, "N884", "a part of each head"),
    "another vocabulary": ({"llama.vocab_size": (99, U32)}, "N884", "a vocabulary of 99"),
    "a window": ({"llama.attention.sliding_window": (64, U32)}, "N884", "a sliding window of 64"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": (float("nan"), F32)}, "N884", "nan"),
    "heads that cannot share": ({"llama.attention.head_count_kv": (3, U32)}, "N884", "cannot share"),
    "a width of other tensors": ({"llama.feed_forward_length": (100, U32)}, "N885", "(96, 32)"),
    "an unknown kind of tokenizer": ({"tokenizer.ggml.model": ("rwkv", STRING)}, "N887", "'rwkv'"),
    "an unknown cut": ({"tokenizer.ggml.pre": ("viking", STRING)}, "N887", "'viking'"),
    "an id of no token": ({"tokenizer.ggml.eos_token_id": (999, U32)}, "N887", "999"),
    "a beginning that is no token": ({"tokenizer.ggml.add_bos_token": (True, BOOL)}, "N887", "no bos_token_id"),
}


@pytest.mark.parametrize(("keys", "code", "words"), KEYS.values(), ids=KEYS)
def test_settings_without_equal_are_refused(keys: dict, code: str, words: str, tmp_path: Path) -> None:
    path = written(small(), tmp_path)
    if "general.architecture" in keys:
        path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
    else:
        path = rewritten(path, tmp_path / "other.gguf", keys=keys)
    found, said = refused(lambda: read(path))
    assert found == code
    assert words in said


DROPPED = {
    "token_embd.weight": ("N885", "token_embd.weight"),
    "blk.0.attn_k.weight": ("N885", "blk.0.attn_k.weight, of the shape (16, 32)"),
    "llama.embedding_length": ("N884", "llama.embedding_length is missing"),
    "tokenizer.ggml.pre": ("N887", "does not say how it cuts text"),
    "tokenizer.ggml.merges": ("N887", "no merges"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    path = rewritten(written(small(), tmp_path), tmp_path / "other.gguf", drop=(name,))
    code, words = DROPPED[name]
    found, said = refused(lambda: read(path))
    assert found == code
    assert words in said


def test_a_file_without_a_tokenizer_gives_its_weights(tmp_path: Path) -> None:
    path = rewritten(written(small(), tmp_path), tmp_path / "bare.gguf", drop=("tokenizer.ggml.model",))
    assert read(path).vocabulary is None


def test_a_tensor_too_many_is_refused(tmp_path: Path) -> None:
    extra = {"blk.0.attn_rot_embd.weight": np.ones(8, np.float32)}
    path = rewritten(written(small(), tmp_path), tmp_path / "other.gguf", extra=extra)
    code, words = refused(lambda: read(path))
    assert code == "N885"
    assert "'blk.0.attn_rot_embd.weight'" in words


def test_factors_that_are_not_llama_3s_are_refused(tmp_path: Path) -> None:
    decoder = replace(SMALL["llama"], rope=LLAMA_3, head_dim=64)

    def uneven(tensor: str, array: np.ndarray):
        return (array + np.arange(32, dtype=np.float32) if tensor == frequencies.NAME else array, None)

    path = rewritten(
        written(random_checkpoint(decoder, vocabulary()), tmp_path), tmp_path / "other.gguf", tensors=uneven
    )
    code, words = refused(lambda: read(path))
    assert code == "N884"
    assert frequencies.NAME in words


# What stands where in the small file's header, for numbers that lie.
def patched(data: bytes, at: int, code: str, value: int) -> bytes:
    return data[:at] + struct.pack(f"<{code}", value) + data[at + struct.calcsize(f"<{code}") :]


def after(data: bytes, name: bytes) -> int:
    return data.index(name) + len(name)


LIES = {
    "empty": (lambda d: b"", "N880", "it is empty"),
    "another format": (lambda d: b"\x89PNG" + d[4:], "N880", "PNG"),
    "version 1": (lambda d: patched(d, 4, "I", 1), "N880", "version is 1"),
    "big-endian": (lambda d: patched(d, 4, "I", 3 << 24), "N880", "big-endian"),
    "cut in the head": (lambda d: d[:20], "N881", "left"),
    "2^63 tensors": (lambda d: patched(d, 8, "Q", 1 << 63), "N881", "do not fit"),
    "2^63 pairs": (lambda d: patched(d, 16, "Q", 1 << 63), "N881", "do not fit"),
    "a key of 2^60 bytes": (lambda d: patched(d, 24, "Q", 1 << 60), "N881", "would take"),
    "a list of 2^62": (lambda d: patched(d, after(d, b"tokenizer.ggml.tokens") + 8, "Q", 1 << 62), "N881", "elements"),
    "a list of lists": (lambda d: patched(d, after(d, b"tokenizer.ggml.tokens") + 4, "I", 9), "N881", "type 9"),
    "a type that is none": (lambda d: patched(d, after(d, b"general.type"), "I", 77), "N881", "type 77"),
    "no UTF-8": (lambda d: d.replace(b"general.type", b"general.typ\xff"), "N881", "UTF-8"),
    "a key twice": (lambda d: d.replace(b"llama.attention.key_length", b"llama.attention.head_count"[:26]), "N881", "twice"),
    "no power of two": (lambda d: d.replace(b"general.file_type", b"general.alignment").replace(
        b"general.alignment\x04\0\0\0\0", b"general.alignment\x04\0\0\0\x03"), "N881", "power of two"),
    "nine axes": (lambda d: patched(d, after(d, b"output_norm.weight"), "I", 9), "N882", "9 axes"),
    "an axis of 2^63": (lambda d: patched(d, after(d, b"output_norm.weight") + 4, "Q", 1 << 63), "N882", "after the end"),
    "an axis of 0": (lambda d: patched(d, after(d, b"output_norm.weight") + 4, "Q", 0), "N882", "shape (0,)"),
    "a quantisation that is none": (lambda d: patched(d, after(d, b"output_norm.weight") + 12, "I", 999), "N886", "999"),
    "rows of no whole blocks": (lambda d: patched(d, after(d, b"output_norm.weight") + 12, "I", 12), "N882", "Q4_K"),
    "misaligned": (lambda d: patched(d, after(d, b"output_norm.weight") + 16, "Q", 1), "N882", "multiple of 32"),
    "overlapping": (lambda d: patched(d, after(d, b"output_norm.weight") + 16, "Q", 0), "N882", "overlap"),
    "past the end": (lambda d: patched(d, after(d, b"output_norm.weight") + 16, "Q", 1 << 40), "N882", "after the end"),
    "cut in the weights": (lambda d: d[:-64], "N882", "after the end"),
    "a name twice": (lambda d: d.replace(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight"), "N882", "twice"),
    "a token twice": (lambda d: d.replace(b"[PAD259]", b"[PAD260]"), "N887", "twice"),
    "a merge of no tokens": (lambda d: d.replace(b"\x04\0\0\0\0\0\0\0ab c", b"\x04\0\0\0\0\0\0\0zz c"), "N887", "zz c"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code", "words"), LIES.values(), ids=LIES)
def test_files_that_lie_are_refused(change: Callable[[bytes], bytes], code: str, words: str, tmp_path: Path) -> None:
    path = written(small(), tmp_path)
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    found, said = refused(lambda: read(path))
    assert found == code
    assert words in said


@pytest.fixture(scope="module")
def bytes_of_a_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(small(), tmp_path_factory.mktemp("gguf")).read_bytes()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_is_read_or_refused(data: st.DataObject, bytes_of_a_file: bytes, tmp_path: Path) -> None:
    """Flipped bytes, mostly before the weights, and files that end early."""
    changed = bytearray(bytes_of_a_file)
    header = bytes_of_a_file.rindex(b"blk.0.ffn_down.weight") + 200
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header) | st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(changed))) :]
    path = tmp_path / "changed.gguf"
    path.write_bytes(changed)
    try:
        checkpoint = read(path)
    except NeuralError:
        return
    assert all(checkpoint.tensors[name].dtype == np.float32 for name in checkpoint.tensors)


CHANGED = {
    "relu": ({"activation": "relu"}, "activation is 'relu' here"),
    "a window": ({"window": 8}, "window is 8 here"),
    "a bias of the head": ({"head_bias": True}, "head_bias is True here"),
    "a scale": ({"scale": 0.5}, "scale is 0.5 here"),
    "norms of queries with another epsilon": ({"qk_norm": True}, "epsilon is 1e-05"),
    "a scaled embedding": ({"embedding_scale": 2.0}, "multiplied by 2.0 here"),
    "Llama 3's scaling in a Qwen": ({"rope": LLAMA_3, "qk_norm": True, "epsilon": 1e-6}, "not known there"),
    "factors that two scalings have": (
        {"rope": replace(LLAMA_3, low_frequency_factor=2.0, high_frequency_factor=8.0), "head_dim": 64},
        "low_frequency_factor 1.0",
    ),
}


@pytest.mark.parametrize(("changes", "words"), CHANGED.values(), ids=CHANGED)
def test_a_decoder_without_equal_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    checkpoint = small(**changes)
    code, said = refused(lambda: write(checkpoint, tmp_path / "model.gguf"))
    assert code == "N888"
    assert words in said
    assert not list(tmp_path.iterdir())


MODEL = LAYOUT["model"]
SPECIAL = LAYOUT["added_tokens"][0]
TOKENIZERS = {
    "characters": ({"model": MODEL | {"type": "WordLevel"}}, "it is of characters"),
    "another cut": ({"pre_tokenizer": {"type": "Whitespace"}}, "no name for the way"),
    "a cut of bytes alone": ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}, "no name"),
    "a space before": ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "no name"),
    "small letters": ({"normalizer": {"type": "Lowercase"}}, "no name"),
    "no bytes": ({"decoder": {"type": "Fuse"}}, "neither a byte-level BPE"),
    "dropout": ({"model": MODEL | {"dropout": 0.1}}, "`dropout`"),
    "no merges": ({"model": MODEL | {"merges": []}}, "merges nothing"),
    "a merge to no token": ({"model": MODEL | {"merges": ["c a"]}}, "'c a'"),
    "too many tokens": ({"model": MODEL | {"vocab": MODEL["vocab"] | {"abcd": 300}}}, "the token 300"),
    "two ids for one token": ({"added_tokens": [SPECIAL | {"id": 259}, SPECIAL]}, "two of its ids"),
    "an added token in the place of another": ({"added_tokens": [SPECIAL | {"id": 0}, SPECIAL]}, "the id 0"),
    "margins": ({"added_tokens": [SPECIAL | {"lstrip": True}]}, "`lstrip`"),
    "a pair around": ({"post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}}, "one token before"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_without_equal_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    code, said = refused(lambda: write(replace(small(), vocabulary=vocabulary(**changes)), tmp_path / "model.gguf"))
    assert code == "N889"
    assert words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("changes", "words"), [
    ({"eos_id": None}, "no token for the end of text"),
    ({"pad_id": 5000}, "pad_id is 5000"),
    ({"tokenizer_json": "{"}, "not JSON"),
    ({"tokenizer_json": "[]"}, "no model"),
])  # fmt: skip
def test_a_vocabulary_without_equal_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    checkpoint = small()
    checkpoint = replace(checkpoint, vocabulary=replace(checkpoint.vocabulary, **changes))
    code, said = refused(lambda: write(checkpoint, tmp_path / "model.gguf"))
    assert code == "N889"
    assert words in said


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = replace(small(), vocabulary=None)
    assert refused(lambda: write(checkpoint, tmp_path / "model.gguf"))[0] == "N889"


def test_tensors_that_are_not_the_decoders_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    checkpoint = small()
    tensors = dict(checkpoint.tensors) | {"norm.weight": np.zeros(7, np.float32)}
    assert refused(lambda: write(replace(checkpoint, tensors=tensors), tmp_path / "model.gguf"))[0] == "N861"
    assert not list(tmp_path.iterdir())
