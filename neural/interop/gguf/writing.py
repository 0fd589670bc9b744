"""From a `Checkpoint` to a GGUF file of float32, as llama.cpp's own converter writes it. Quantised matrices are in the
types of GGUF that hold them exactly, where there are such.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Checkpoint, Decoder, Steps, tensor_shapes
from neural.interop.gguf import blocks, frequencies
from neural.interop.gguf.architectures import (
    ARCHITECTURES,
    Architecture,
    by_neighbours,
    file_names,
    heads_to_turn,
)
from neural.interop.gguf.tokens import ByteLevel, Tokens, to_tokens
from neural.interop.recognition import require_tensors

if TYPE_CHECKING:
    import numpy
    from gguf import GGMLQuantizationType, GGUFWriter

    Array = numpy.ndarray

ALL_FLOAT32 = 0  # general.file_type: see blocks.MOSTLY


def write(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write one file, whole or not at all. Dropout is left out: nothing of it is in a model that is used. Biases that
    the architecture has and the decoder has not are zeros.

    NeuralError: N861 (tensors that are not those of the decoder), N888 (a decoder without equal in llama.cpp), N889 (a
    tokenizer without equal). OSError as the system gives it.
    """
    from gguf import GGUFWriter

    architecture = architecture_of(checkpoint.decoder)
    decoder = architecture.filled(checkpoint.decoder)
    tokens = to_tokens(checkpoint.vocabulary, decoder.vocab_size)
    require_tensors(checkpoint.decoder, checkpoint.tensors)
    with _beside(Path(path)) as beside:
        writer = GGUFWriter(None, architecture.name)
        try:
            _write_settings(writer, architecture, decoder, checkpoint.steps)
            _write_tokenizer(writer, tokens, checkpoint.vocabulary.chat_template)
            _write_tensors(writer, beside, architecture, decoder, checkpoint)
        finally:
            writer.close()


def architecture_of(decoder: Decoder) -> Architecture:
    """The first that can hold it. NeuralError N888 with what hinders the one that comes nearest."""
    hindrances = {a: tuple(a.differences(decoder)) for a in ARCHITECTURES.values()}
    nearest = min(hindrances, key=lambda a: len(hindrances[a]))
    if hindrances[nearest]:
        fail(
            "N888",
            "the model has no equal in llama.cpp",
            notes=(f"nearest is {nearest.name}, but {'; '.join(hindrances[nearest])}",),
            hint="nothing is approximated: export it in another format",
        )
    return nearest


def _write_settings(
    writer: GGUFWriter, architecture: Architecture, decoder: Decoder, steps: Mapping[str, Steps]
) -> None:
    writer.add_type("model")
    fewest = min((held.bits for held in steps.values()), default=None)
    writer.add_file_type(ALL_FLOAT32 if fewest is None else blocks.MOSTLY[fewest])
    writer.add_vocab_size(decoder.vocab_size)
    writer.add_context_length(decoder.context)
    writer.add_embedding_length(decoder.d_model)
    writer.add_block_count(decoder.n_layer)
    writer.add_feed_forward_length(decoder.d_ff)
    writer.add_head_count(decoder.n_head)
    writer.add_head_count_kv(decoder.n_kv_head)
    writer.add_float32(f"{architecture.name}.{architecture.epsilon_key}", decoder.epsilon)
    if decoder.rope is None:
        return
    writer.add_key_length(decoder.head_dim)
    writer.add_value_length(decoder.head_dim)
    writer.add_rope_dimension_count(decoder.head_dim)
    writer.add_rope_freq_base(decoder.rope.base)
    if decoder.rope.scaling == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(decoder.rope.factor)


def _write_tokenizer(writer: GGUFWriter, tokens: Tokens, chat_template: str | None) -> None:
    if isinstance(tokens.model, ByteLevel):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(tokens.model.pre)
        writer.add_token_merges(tokens.model.merges)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(tokens.model.scores)
        writer.add_add_space_prefix(tokens.model.space_before)
    writer.add_token_list(tokens.tokens)
    writer.add_token_types([int(kind) for kind in tokens.kinds])
    writer.add_eos_token_id(tokens.eos_id)
    if tokens.bos_id is not None:
        writer.add_bos_token_id(tokens.bos_id)
    if tokens.pad_id is not None:
        writer.add_pad_token_id(tokens.pad_id)
    writer.add_add_bos_token(tokens.add_bos)
    writer.add_add_eos_token(tokens.add_eos)
    if chat_template:
        writer.add_chat_template(chat_template)


def _write_tensors(
    writer: GGUFWriter, path: Path, architecture: Architecture, decoder: Decoder, checkpoint: Checkpoint
) -> None:
    """One after the other, so that a single one is in memory."""
    import numpy as np

    names = file_names(architecture, decoder)
    shapes = tensor_shapes(decoder)
    factors = _factors(decoder)
    if factors is not None:
        writer.add_tensor_info(frequencies.NAME, factors.shape, factors.dtype, factors.nbytes)
    kinds = {theirs: blocks.kind([checkpoint.steps.get(name) for name in held]) for theirs, held in names.items()}
    for theirs, held in names.items():
        shape = (sum(shapes[name][0] for name in held), *shapes[held[0]][1:])
        _announce(writer, theirs, shape, kinds[theirs])
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    tensors, steps = checkpoint.tensors, checkpoint.steps
    for theirs, held in names.items():
        parts = [
            _in_order(architecture, decoder, name, tensors[name])
            if name in tensors
            else np.zeros(shapes[name], np.float32)
            for name in held
        ]
        numbers = np.ascontiguousarray(np.concatenate(parts), np.float32)
        if kinds[theirs] is not None:
            scales = [_in_order(architecture, decoder, name, steps[name].scales) for name in held]
            numbers = blocks.encoded(numbers, Steps(steps[held[0]].bits, np.concatenate(scales)))
        writer.write_tensor_data(numbers)


def _announce(writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType | None) -> None:
    """A tensor whose numbers come later. kind: None for float32."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES

    size = int(np.prod(shape, dtype=np.int64))
    if kind is None:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * size)
        return
    block, n_bytes = GGML_QUANT_SIZES[kind]
    row = shape[-1] // block * n_bytes
    writer.add_tensor_info(name, (*shape[:-1], row), np.dtype(np.uint8), size // block * n_bytes, raw_dtype=kind)


def _factors(decoder: Decoder) -> Array | None:
    """Llama 3's. NeuralError N888 if whoever reads them could not tell what they were made of."""
    rope = decoder.rope
    if rope is None or rope.scaling != "llama3":
        return None
    found = frequencies.factors(rope, decoder.head_dim)
    if frequencies.scaling(rope.base, decoder.head_dim, found) != rope:
        fail(
            "N888",
            "the scaling of RoPE cannot be said in a GGUF file, which has its factors alone",
            notes=(
                f"known are Llama 3's: low_frequency_factor {frequencies.LOW}, "
                f"high_frequency_factor {frequencies.HIGH}, and any factor and original length",
            ),
        )
    return found


def _in_order(architecture: Architecture, decoder: Decoder, name: str, rows: Array) -> Array:
    heads = heads_to_turn(architecture, decoder, name)
    return rows if heads is None else by_neighbours(rows, heads)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file to fill, which becomes `path` when the block ends well and vanishes when it does not."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)  # mkstemp's file is its owner's alone
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
