"""Where models come from: a Hugging Face folder, the hub, a GGUF file."""

from __future__ import annotations

from pathlib import Path

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Checkpoint

HUB = "hf:"
WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt")


def read(source: str) -> Checkpoint:
    """The model that a name stands for: "hf:owner/name", a folder, or a .gguf file.

    NeuralError: N870 (nothing that is known), N872 (the hub gives it not), and those of the readers.
    """
    if source.startswith(HUB):
        from neural.interop import huggingface

        return huggingface.read(download(source))
    path = Path(source)
    if path.is_dir():
        from neural.interop import huggingface

        return huggingface.read(path)
    if not path.is_file():
        fail("N870", f"there is no {path}", hint="give a Hugging Face folder, hf:owner/name, or a .gguf file")
    if _is_gguf(path):
        from neural.interop import gguf

        return gguf.read(path)
    return fail(
        "N870",
        f"{path} is neither a Hugging Face folder nor a GGUF file",
        notes=("weights alone say no architecture: a folder has config.json beside them",),
        hint='give the folder, or name the weights in a program of your own: `weights: "model.safetensors"`',
    )


def download(source: str) -> Path:
    """The folder of a model of the hub, from the cache where it is whole. NeuralError N872."""
    from huggingface_hub import errors, snapshot_download

    name, _, revision = source.removeprefix(HUB).partition("@")
    options = {"revision": revision or None, "allow_patterns": WANTED}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **options))
        if (cached / "config.json").exists() and any(cached.glob("*.safetensors")):
            return cached
    except errors.HFValidationError as error:
        fail("N872", f"`{source}` is no name of the hub: {error}", hint="write it like hf:owner/name")
    except OSError:
        pass  # it is not in the cache: fetched below
    try:
        return Path(snapshot_download(name, **options))
    except (OSError, errors.HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        return fail(
            "N872",
            f"the Hugging Face hub does not give {name}: {reason}",
            hint="check the name and the network; or fetch the folder yourself and give its path",
        )


def _is_gguf(path: Path) -> bool:
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
