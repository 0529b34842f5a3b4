"""Conversations for the prepare step: a model whose chat template can be chosen, and what is made of records for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.chat_templates import CHATML
from tests.unit.trainer.run_contexts import context_of, prepared
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import load_tokenizer
from trainyard.trainer.errors import UserError

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["a", None]}}},
    },
}


class World:
    """A claim `m` with a model whose chat template can be chosen, and files."""

    def __init__(self, place: Path, base: Path) -> None:
        self.place, self.base = place, base
        self.claim = place / "volumes" / "m"
        self.claim.mkdir(parents=True)

    def context(
        self, datasets: list[dict[str, Any]], *, template: str = CHATML.template(), **training: Any
    ) -> RunContext:
        tokenizer = load_tokenizer(self.base)
        tokenizer.chat_template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        tokenizer.save_pretrained(self.claim / "model")
        (self.claim / "model" / "config.json").write_text('{"model_type": "llama"}')
        method = training.pop("method", "SFT")
        more = {key: training.pop(key) for key in ("evaluation", "storage") if key in training}
        spec = {
            "model": {"storageUri": "pvc://m/model"},
            "datasets": datasets,
            "training": {"method": method, "maxLength": 1024, **training},
            **more,
        }
        return context_of(self.place, spec)

    def prepared(self, *datasets: dict[str, Any], **more: Any) -> tuple[list[str], dict[str, Any]]:
        """Each example's text with what counts in brackets, and the manifest."""
        made = self.context(list(datasets), **more)
        manifest = prepared(made, self.place, prepare=prepare)
        tokenizer = load_tokenizer(made.data_dir / "tokenizer")
        train = Sequences.open(made.data_dir / "train", vocab_size=manifest["vocabSize"])
        texts = []
        for number in range(len(train.starts) - 1):
            ids, counts = train.example(number)
            pieces, inside = [], False
            for token, counted in zip(ids, counts if counts is not None else [True] * len(ids), strict=True):
                if counted != inside:
                    pieces.append("⟦" if counted else "⟧")
                    inside = bool(counted)
                pieces.append(tokenizer.decode([int(token)], skip_special_tokens=False))
            texts.append("".join(pieces) + ("⟧" if inside else ""))
        return texts, manifest

    def file(self, name: str, *records: Any) -> str:
        (self.claim / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return f"pvc://m/{name}"


def chat(*contents: str, system: str = "") -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + turns}


def messages(*records: Any, **more: Any) -> dict[str, Any]:
    return {"name": "d", "format": "Messages", "inline": {"records": list(records)}, **more}


def refused(world: World, *datasets: dict[str, Any], **more: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        world.prepared(*datasets, **more)
    assert caught.value.exit_code == ExitCode.INVALID_DATA
    return caught.value


def called(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"messages": [{"role": "user", "content": "rain?"}, answer]}
