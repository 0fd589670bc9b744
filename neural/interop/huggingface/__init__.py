"""Hugging Face directories: config.json, safetensors and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neural.diagnostics.diagnostic import fail
from neural.diagnostics.near import nearest
from neural.interop.decoder import Checkpoint, Decoder, tensor_shapes
from neural.interop.fields import Fields, read_object
from neural.interop.huggingface.family import Family, assembled, parts
from neural.interop.huggingface.gpt2 import Gpt2
from neural.interop.huggingface.llama import GEMMA, LLAMA, MISTRAL, QWEN2, QWEN3
from neural.interop.huggingface.tokenizer import (
    GENERATION,
    read_vocabulary,
    require_fitting,
    write_json,
    write_vocabulary,
)

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray

CONFIG = "config.json"
# In the order in which a decoder of no family of its own is tried.
FAMILIES: dict[str, Family] = {f.model_type: f for f in (Gpt2(), LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA)}

# What old checkpoints carry beside weights: masks and frequencies that follow from the configuration.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def read(path: Path) -> Checkpoint:
    """A directory that `save_pretrained` or the hub gives.

    NeuralError: N862 (an unknown family), N863, N864 (a configuration that is none), N865 (a feature without equal),
    N861 (a tensor that does not fit), N866, N869 (a tokenizer that does not), N820 to N826 (the weights' files).
    """
    from neural.interop.tensor_files import read_tensors

    config = read_config(path)
    family = family_of(config)
    decoder = family.decoder(config)
    vocabulary = read_vocabulary(path, config)
    require_fitting(vocabulary, decoder.vocab_size)
    tensors = _pivot(family, decoder, read_tensors(path))
    return Checkpoint(decoder, tensors, vocabulary, family.model_type)


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Fill an empty folder, of which `from_pretrained` makes the same model and tokenizer.

    The family is the checkpoint's own, or the first that can say its decoder. NeuralError N866, N867 (none can).
    """
    from neural.interop.tensor_files import write_tensors

    require_fitting(checkpoint.vocabulary, checkpoint.decoder.vocab_size)
    family = choose(checkpoint.decoder, checkpoint.family)
    full = filled(family, checkpoint)
    config = family.config(full.decoder)
    vocabulary = checkpoint.vocabulary
    ids = {f"{n}_token_id": getattr(vocabulary, f"{n}_id", None) for n in ("bos", "eos", "pad")}
    write_json(folder / CONFIG, config | ids)
    write_tensors({t.name: assembled(t, full.tensors) for t in family.tensors(full.decoder)}, folder)
    if vocabulary is not None:
        write_vocabulary(vocabulary, folder, checkpoint.decoder.context)
        write_json(folder / GENERATION, {name: i for name, i in ids.items() if i is not None})


def read_config(folder: Path) -> Fields:
    """NeuralError N863."""
    path = folder / CONFIG
    if not path.is_file():
        fail("N863", f"{folder} has no {CONFIG}", hint="give the folder of a Hugging Face model")
    return Fields(read_object(path), path)


def family_of(config: Fields) -> Family:
    """NeuralError N862."""
    found = config.text("model_type")
    if found not in FAMILIES:
        known = ", ".join(FAMILIES)
        near = nearest(found, FAMILIES)
        fail(
            "N862",
            f"{config.path} is of the family `{found[:40]}`, which is not known",
            notes=(f"families that are known: {known}",),
            hint=f"did you mean `{near}`?" if near else None,
        )
    return FAMILIES[found]


def choose(decoder: Decoder, wanted: str | None = None) -> Family:
    """The family that can say a decoder: `wanted` where it can, else the first. NeuralError N867."""
    first = [FAMILIES[wanted]] if wanted in FAMILIES else []
    said = {}
    for family in [*first, *FAMILIES.values()]:
        reasons = family.why_not(decoder)
        if not reasons:
            return family
        said[family.model_type] = reasons
    notes = tuple(
        f"{name}: {'; '.join(reasons[:3])}" for name, reasons in sorted(said.items(), key=lambda s: len(s[1]))
    )
    return fail("N867", "no family of Hugging Face's can say this model", notes=notes)


def filled(family: Family, checkpoint: Checkpoint) -> Checkpoint:
    """The same model in the family's terms: the biases that it always has are zeros where there were none."""
    import numpy as np

    decoder = family.filled(checkpoint.decoder)
    tensors = dict(checkpoint.tensors)
    for name, shape in tensor_shapes(decoder).items():
        if name not in tensors:
            tensors[name] = np.zeros(shape, np.float32)
    return Checkpoint(decoder, tensors, checkpoint.vocabulary, family.model_type)


def _pivot(family: Family, decoder: Decoder, stored: Mapping[str, Array]) -> dict[str, Array]:
    """Tensors by the pivot's names. NeuralError N861 names the first that does not fit."""
    shapes = tensor_shapes(decoder)
    prefix = "" if any(name.startswith(family.base) for name in stored) else family.base
    names = {name if name.startswith("lm_head.") else prefix + name: name for name in stored}
    names = {full: name for full, name in names.items() if not name.endswith(BUFFERS)}
    found: dict[str, Array] = {}
    for tensor in family.tensors(decoder):
        name = names.pop(tensor.name, None)
        if name is None:
            expected = sum(shapes[p][0] for p in tensor.parts), *shapes[tensor.parts[0]][1:]
            fail(
                "N861",
                f"`{tensor.name}` is missing: the configuration needs it with the shape "
                f"{expected[::-1] if tensor.transposed else expected}",
            )
        found |= parts(tensor, stored[name], shapes)
    _untied(names, found, stored)
    for name in names.values():
        fail(
            "N861",
            f"`{name}` of the shape {stored[name].shape} has no place in a {family.model_type} of this configuration",
        )
    return {name: found[name] for name in shapes}


def _untied(names: dict[str, str], found: Mapping[str, Array], stored: Mapping[str, Array]) -> None:
    """Take a head away that the configuration ties to the embedding. NeuralError N861 if it is another matrix."""
    import numpy as np

    name = names.pop("lm_head.weight", None)
    if name is not None and not np.array_equal(stored[name], found["tokens.weight"]):
        fail(
            "N861",
            "`lm_head.weight` differs from the embedding, and the configuration ties the two",
            hint="write `tie_word_embeddings: false` into config.json if the head is its own",
        )
