"""A tokenizer as the files of a Hugging Face directory have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neural.diagnostics.diagnostic import fail
from neural.interop.decoder import Vocabulary
from neural.interop.fields import Fields, read_object, read_text

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"


def read_vocabulary(folder: Path, config: Fields) -> Vocabulary | None:
    """The tokenizer of a folder; None if it has no tokenizer.json.

    NeuralError N863 (not JSON), N869 (a tokenizer.json without tokens, a special token that is none).
    """
    file = folder / FILE
    if not file.is_file():
        return None
    ids = ids_of(read_object(file), str(file))
    settings = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    generation = read_object(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    special = {
        name: _special(name, settings, generation, config.values, ids, folder / CONFIG)
        for name in ("bos", "eos", "pad")
    }
    return Vocabulary(
        read_text(file),
        special["bos"],
        special["eos"],
        special["pad"],
        _template(folder, settings.get("chat_template")),
    )


def ids_of(layout: dict[str, Any], source: str) -> dict[str, int]:
    """The id of each token of a tokenizer.json. NeuralError N869."""
    model = layout.get("model")
    found = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(found, list):  # Unigram: pairs of token and score
        found = {pair[0]: i for i, pair in enumerate(found) if isinstance(pair, list) and pair}
    added = layout.get("added_tokens") or []
    if not isinstance(found, dict) or not isinstance(added, list):
        fail("N869", f"{source} is no tokenizer of Hugging Face: it has no `model.vocab`")
    try:
        ids = {str(token): int(number) for token, number in found.items()}
        return ids | {str(token["content"]): int(token["id"]) for token in added}
    except (TypeError, ValueError, KeyError) as error:
        fail("N869", f"{source} has a token that is none: {type(error).__name__}: {error}")


def require_fitting(vocabulary: Vocabulary | None, vocab_size: int) -> None:
    """NeuralError N866 if the tokenizer has an id that the model has no row for."""
    if vocabulary is None:
        return
    ids = ids_of(json.loads(vocabulary.tokenizer_json), "the tokenizer")
    token, last = max(ids.items(), key=lambda item: item[1], default=("", -1))
    if last >= vocab_size:
        fail(
            "N866",
            f"the tokenizer's token {token!r} has the id {last:,}, and the model has {vocab_size:,} rows",
            hint="the tokenizer belongs to another model, or the model was not resized after tokens were added",
        )


def write_vocabulary(vocabulary: Vocabulary, folder: Path, context: int) -> None:
    """tokenizer.json as it is, and the configuration that transformers reads beside it."""
    (folder / FILE).write_text(vocabulary.tokenizer_json, encoding="utf-8")
    token_of = {i: t for t, i in ids_of(json.loads(vocabulary.tokenizer_json), FILE).items()}
    special = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
    settings |= {f"{name}_token": token_of[i] for name, i in special.items() if i is not None}
    settings["clean_up_tokenization_spaces"] = False
    if vocabulary.chat_template is not None:
        settings["chat_template"] = vocabulary.chat_template
    write_json(folder / CONFIG, settings)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _special(
    name: str, settings: dict, generation: dict, config: dict, ids: dict[str, int], source: Path
) -> int | None:
    """By the tokenizer's own word, else by the id that the model was configured with; of several ids the first."""
    token = settings.get(f"{name}_token")
    token = token.get("content") if isinstance(token, dict) else token
    if isinstance(token, str):
        if token not in ids:
            fail("N869", f"`{name}_token` in {source} is {token!r}, which is no token of {FILE}")
        return ids[token]
    found = generation.get(f"{name}_token_id", config.get(f"{name}_token_id"))
    found = found[0] if isinstance(found, list) and found else found
    return found if type(found) is int and found in set(ids.values()) else None


def _template(folder: Path, setting: Any) -> str | None:
    """The Jinja of chats: a text, a list of named ones of which `default` is meant, or a file of its own."""
    if (folder / TEMPLATE).is_file():
        return read_text(folder / TEMPLATE)
    if isinstance(setting, list):
        named = {t.get("name"): t.get("template") for t in setting if isinstance(t, dict)}
        setting = named.get("default")
    return setting if isinstance(setting, str) else None
