"""How a tokenizer cuts text, by llama.cpp's name for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.exports.gguf_files.pretokenizer import WORDS_LLAMA, WORDS_QWEN, pre_tokenizer_of

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ONLY_BYTES = {**BYTES, "use_regex": False}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def steps(*each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(each)}


@pytest.mark.parametrize(
    ("pre_tokenizer", "model", "normalizer", "name"),
    [
        (BYTES, {}, None, "gpt-2"),
        (steps({"type": "Digits", "individual_digits": True}, BYTES), {}, None, "smollm"),
        (steps(split(WORDS_LLAMA), ONLY_BYTES), {"ignore_merges": True}, None, "llama-bpe"),
        (steps(split(WORDS_LLAMA), ONLY_BYTES), {}, None, "smaug-bpe"),
        (steps(split(WORDS_QWEN), ONLY_BYTES), {}, {"type": "NFC"}, "qwen2"),
        ({**BYTES, "add_prefix_space": True}, {}, None, None),
        (BYTES, {}, {"type": "Lowercase"}, None),
        (steps(split(r"\d"), ONLY_BYTES), {}, None, None),
        (steps({"type": "Digits", "individual_digits": False}, BYTES), {}, None, None),
        (None, {"byte_fallback": True}, None, None),
        (BYTES, {"type": "Unigram"}, None, None),
    ],
)
def test_only_what_is_known_to_be_the_same_has_a_name(
    tmp_path: Path, pre_tokenizer: Any, model: dict[str, Any], normalizer: Any, name: str | None
) -> None:
    tokenizer = {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "model": {"type": "BPE", **model}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert pre_tokenizer_of(tmp_path) == name


def test_a_tokenizer_that_is_trained_here_has_a_name(tmp_path: Path) -> None:
    train_tokenizer(iter(["some text of 12 words"] * 50), 300, tmp_path).save_pretrained(tmp_path)
    assert pre_tokenizer_of(tmp_path) == "gpt-2"


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert pre_tokenizer_of(tmp_path) is None
