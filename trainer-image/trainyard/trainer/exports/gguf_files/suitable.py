"""Whether a run's model can become a GGUF, from what is there before the training: the spec and the base's small files."""

from __future__ import annotations

import ast
import json
import re
from hashlib import sha256
from pathlib import Path

from trainyard.trainer.context import RunContext
from trainyard.trainer.exports.gguf_files.convert import (
    CONVERTER,
    known_architectures,
    unknown_architecture,
    unknown_tokenizer,
)
from trainyard.trainer.exports.gguf_files.pretokenizer import pre_tokenizer_of
from trainyard.trainer.exports.whole import check_whole
from trainyard.trainer.volume.bases import base_folder


def check_suitable(context: RunContext, *, field: str) -> None:
    """Refuse what cannot become one.

    Raises:
        UserError: it is no language model, only an adapter is kept, or llama.cpp knows its class or its tokenizer not.
    """
    check_whole(context, field=field)
    model, classes = context.model, known_architectures()
    if model.scratch is not None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model.scratch.architecture)
        if isinstance(name, str) and name not in classes:
            raise unknown_architecture(field, name)
        return
    if model.storage_uri is None or not classes:
        return
    folder = base_folder(context, weights=False)
    for name in _classes_of(folder)[:1]:
        if name not in classes:
            raise unknown_architecture(field, name)
    if _is_byte_level(folder) and pre_tokenizer_of(folder) is None and not known_by_hash(folder):
        raise unknown_tokenizer(field, folder)


def known_by_hash(folder: Path, converter: Path = CONVERTER) -> bool:
    """Whether the converter has seen this tokenizer: its text and its hashes are read from its source, since importing it takes
    torch along."""
    from tokenizers import Tokenizer

    source = (converter / "conversion" / "base.py").read_text()
    texts = [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "chktxt"
        and isinstance(node.value, ast.Constant)
    ]
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(texts[0]).ids
    return sha256(str(ids).encode()).hexdigest() in re.findall(r'chkhsh == "([0-9a-f]{64})"', source)


def _classes_of(folder: Path) -> list[str]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return []  # told better by those who load it
    return list((config.get("text_config") or {}).get("architectures") or config.get("architectures") or [])


def _is_byte_level(folder: Path) -> bool:
    """Pieces over bytes, whose cutting goes by a name; those with byte_fallback go by scores."""
    try:
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
    except (OSError, ValueError, KeyError):
        return False
    return model.get("type") == "BPE" and not model.get("byte_fallback")
