"""A tokenizer's folder as others can load it.

transformers 5 saves the name of its own class, which version 4, vLLM and the converters do not know, the special tokens of a
model as a list where version 4 wants a table, and the chat template in a file that older readers do not open. Here the
source's own class is kept, and the rest is said in both ways.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
GENERAL = "PreTrainedTokenizerFast"
"""Read by all versions, from tokenizer.json alone."""
NEW_CLASSES = frozenset(("TokenizersBackend", "PythonBackend", "SentencePieceBackend"))
OF_THIS_MACHINE = ("is_local", "local_files_only", "backend", "name_or_path")


def write_for_others(folder: Path, source: Path | None = None) -> None:
    """Rewrite tokenizer_config.json of a tokenizer that was just saved; `source` is where it was loaded from."""
    file = folder / CONFIG
    values = _read(file)
    before = _read(source / CONFIG) if source is not None else {}
    values["tokenizer_class"] = _class_of(before)
    for name in OF_THIS_MACHINE:
        values.pop(name, None)
    extra = values.get("extra_special_tokens")
    if isinstance(extra, list):
        del values["extra_special_tokens"]
        values["additional_special_tokens"] = extra
    if (folder / TEMPLATE).is_file():
        values["chat_template"] = (folder / TEMPLATE).read_text()
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def _class_of(source: dict[str, Any]) -> str:
    name = source.get("tokenizer_class")
    return name if isinstance(name, str) and name not in NEW_CLASSES else GENERAL


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
