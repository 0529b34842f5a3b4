"""How a tokenizer cuts text before it looks up pieces, by llama.cpp's name for it (`tokenizer.ggml.pre`).

The converter knows published tokenizers by a hash of what they make of one text, so one that was trained here, or got new
tokens, is a stranger to it although it cuts as a known one does. How it cuts stands in tokenizer.json, and llama.cpp has the
same rules under a name; where it has not, no file is made, because a wrong name gives a model that answers nearly right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS_LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS_QWEN = WORDS_LLAMA.replace(r"\p{N}{1,3}", r"\p{N}")


def pre_tokenizer_of(folder: Path) -> str | None:
    """llama.cpp's name for what tokenizer.json does; None if it has none, or none is known to be the same."""
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
    except (OSError, ValueError):
        return None
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    steps = [_plain(step) for step in _steps(tokenizer.get("pre_tokenizer"))]
    ignores_merges = bool(model.get("ignore_merges"))
    if normalizer is None and not ignores_merges and steps == [("ByteLevel", True)]:
        return "gpt-2"
    if normalizer is None and not ignores_merges and steps == [("Digits", True), ("ByteLevel", True)]:
        return "smollm"
    if normalizer is None and steps == [("Split", WORDS_LLAMA), ("ByteLevel", False)]:
        return "llama-bpe" if ignores_merges else "smaug-bpe"
    # Qwen's own normalizer is left out by llama.cpp, too: it matters for text that is not composed, which is rare.
    if normalizer in (None, "NFC") and not ignores_merges and steps == [("Split", WORDS_QWEN), ("ByteLevel", False)]:
        return "qwen2"
    return None


def _steps(pre_tokenizer: Any) -> list[dict[str, Any]]:
    if not pre_tokenizer:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]


def _plain(step: dict[str, Any]) -> tuple[str, Any]:
    """A step by its kind and the one thing that tells it from its like; unlike any known one if there is more to it."""
    kind = str(step.get("type"))
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return kind, bool(step.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(step.get("individual_digits"))
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return kind, (step.get("pattern") or {}).get("Regex")
    return kind, step
