"""GGUF: what is written is read again bit for bit, and packed weights become float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf as package
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

from neural.interop.decoder import Rotary, tensor_shapes
from neural.interop.gguf import frequencies, read, write
from neural.interop.gguf.architectures import BIASES, by_halves, by_neighbours
from neural.interop.gguf.container import open_container
from tests.interop.gguf_models import (
    DECODERS,
    LAYOUT,
    SMALL,
    quantized,
    random_checkpoint,
    rewritten,
    small,
    vocabulary,
    written,
)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    checkpoint = small(name)
    again = read(written(checkpoint, tmp_path))
    assert again.decoder == checkpoint.decoder
    assert again.family == name
    assert list(again.tensors) == list(checkpoint.tensors)
    for tensor, array in checkpoint.tensors.items():
        assert again.tensors[tensor].dtype == np.float32
        np.testing.assert_array_equal(again.tensors[tensor], array, err_msg=tensor)
    assert list(tmp_path.iterdir()) == [tmp_path / "model.gguf"]


@pytest.mark.parametrize(("bits", "kind"), [(8, "Q8_0"), (4, "Q4_0")])
@pytest.mark.parametrize("name", DECODERS)
def test_quantised_matrices_keep_their_bits(name: str, bits: int, kind: str, tmp_path: Path) -> None:
    """But rows that are no whole blocks; 4 bits are 8 there, too."""
    checkpoint = quantized(small(name), bits)
    path = written(checkpoint, tmp_path)
    again = read(path).tensors
    for tensor, array in checkpoint.tensors.items():
        np.testing.assert_array_equal(again[tensor], array, err_msg=tensor)
    stored = open_container(path)
    matrices = {t for t, s in stored.tensors.items() if len(s.shape) == 2 and "position" not in t}
    for tensor, held in stored.tensors.items():
        assert held.type == (kind if tensor in matrices and held.shape[-1] % 32 == 0 else "F32"), tensor
    assert stored.metadata["general.file_type"] == {8: 7, 4: 2}[bits]


def test_zero_points_have_no_equal_and_are_float32(tmp_path: Path) -> None:
    checkpoint = quantized(small(), 4, zeros=True)
    path = written(checkpoint, tmp_path)
    assert not checkpoint.steps
    assert {stored.type for stored in open_container(path).tensors.values()} == {"F32"}


@pytest.mark.parametrize("name", DECODERS)
def test_the_package_gguf_reads_it_and_finds_the_names_of_llama_cpp(name: str, tmp_path: Path) -> None:
    reader = GGUFReader(written(small(name), tmp_path))
    assert reader.fields["general.architecture"].contents() == name
    arch = next(a for a, text in package.MODEL_ARCH_NAMES.items() if text == name)
    known = {package.TENSOR_NAMES[t].format(bid=0) for t in package.MODEL_TENSORS[arch]}
    assert {t.name.rpartition(".")[0] for t in reader.tensors} <= known


def test_a_vocabulary_shorter_than_the_table_of_embeddings_keeps_its_ids(tmp_path: Path) -> None:
    """nanoGPT pads GPT-2's 50,257 tokens to 50,304."""
    path = written(small(), tmp_path)
    tokens = open_container(path).metadata["tokenizer.ggml.tokens"]
    assert tokens[258:] == ["<|endoftext|>", "[PAD259]", "[PAD260]"]
    assert json.loads(read(path).vocabulary.tokenizer_json)["model"]["vocab"] == LAYOUT["model"]["vocab"]


def test_a_gpt_2_without_biases_has_zeros_in_the_file(tmp_path: Path) -> None:
    checkpoint = small("gpt2", **dict.fromkeys(BIASES, False))
    again = read(written(checkpoint, tmp_path))
    assert again.decoder == SMALL["gpt2"]
    added = again.tensors.keys() - checkpoint.tensors.keys()
    assert added == tensor_shapes(SMALL["gpt2"]).keys() - checkpoint.tensors.keys() != set()
    assert not any(again.tensors[name].any() for name in added)
    assert all((again.tensors[name] == array).all() for name, array in checkpoint.tensors.items())


ROPES = {
    "linear": Rotary(10000.0, "linear", 4.0),
    "Llama 3.1": Rotary(500000.0, "llama3", 8.0),
    "Llama 3.2": Rotary(500000.0, "llama3", 32.0),
    "another length": Rotary(500000.0, "llama3", 8.0, original_max_length=2048),
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_scaling_of_rope_is_kept(rope: Rotary, tmp_path: Path) -> None:
    decoder = replace(SMALL["llama"], rope=rope, head_dim=64)
    assert read(written(random_checkpoint(decoder, vocabulary()), tmp_path)).decoder == decoder


def test_the_factors_are_those_of_transformers() -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=128, num_attention_heads=1, rope_parameters=scaling)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / frequencies.factors(ROPES["Llama 3.1"], 128), scaled.numpy(), rtol=1e-5)


def test_rows_of_heads_in_the_order_of_llama_cpp() -> None:
    rows = np.arange(2 * 6)
    assert by_neighbours(rows, 2).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert by_halves(by_neighbours(rows, 2), 2).tolist() == rows.tolist()


# Each type that NumPy can also pack; the rest of what is unpacked is the same function of the package.
PACKED = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


@pytest.mark.parametrize("name", PACKED)
def test_packed_weights_become_float32(name: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]

    def packed(tensor: str, array: np.ndarray):
        return (quantize(array, kind), kind) if array.ndim == 2 else (array, None)

    checkpoint = small()
    path = rewritten(written(checkpoint, tmp_path), tmp_path / "packed.gguf", tensors=packed)
    assert open_container(path).tensors["blk.0.ffn_up.weight"].type == name
    found = read(path).tensors["blocks.0.up.weight"]
    original = checkpoint.tensors["blocks.0.up.weight"]
    np.testing.assert_array_equal(found, dequantize(quantize(original, kind), kind))
    assert 0 < np.abs(found - original).max() < 0.2


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    class Breaking(dict):
        reads = 0

        def __getitem__(self, name: str) -> np.ndarray:
            self.reads += 1
            if self.reads > len(self) + 3:  # after the check of all shapes
                raise OSError(28, "No space left on device")
            return super().__getitem__(name)

    path = written(small(), tmp_path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space"):
        write(replace(small("gemma"), tensors=Breaking(small("gemma").tensors)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "model.gguf"]
