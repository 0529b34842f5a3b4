"""Eight prompts from the run's data, the same ones each time: held-out records first, because they are what it is judged by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trainyard.trainer.exports.handover.answer import Question

COUNT = 8
LOOKED_AT = 2000
"""Records, of which some may not fit the model."""
LONGEST = 2000
"""Characters of a prompt; longer ones say nothing more about the file and take time."""
BEGINNING = 160
"""Characters of a text that is continued."""
SPARE = (
    "What is the capital of France?",
    "Write a shell command that lists the ten largest files below /var/log.",
    "Name three fruits that are red.",
    "Explain in one sentence what a database index is for.",
    "Translate to German: Good morning, how are you?",
    "What is 12 + 30?",
    "Summarise: The pod was evicted because the node ran out of disk.",
    "Write a Python function that reverses a string.",
)
"""Where the data has too few that can be used."""


def questions(dataset: Path, *, chat: bool, fits: Callable[[Question], bool] = lambda _: True) -> list[Question]:
    """COUNT different questions; conversations where the model has a template for them.

    Of a text that does not fit the model a shorter beginning is taken; a conversation that does not is left out, so there may be fewer.
    """
    found: dict[str, Question] = {}
    for record in islice(_records(dataset), LOOKED_AT):
        question = _question(record, chat=chat)
        if question is not None and len(question.shown) <= LONGEST and (question := _fitting(question, fits)):
            found.setdefault(question.shown, question)
        if len(found) == COUNT:
            return list(found.values())
    for text in SPARE:
        if question := _fitting(_asked(text, chat=chat), fits):
            found.setdefault(question.shown, question)
    return list(found.values())[:COUNT]


def _question(record: dict[str, Any], *, chat: bool) -> Question | None:
    for name in ("messages", "prompt", "chosen"):
        if isinstance(messages := record.get(name), list) and messages:
            return _conversation(messages) if chat else _continued(_text_of(messages))
    text = record.get("prompt") or record.get("text")
    if not isinstance(text, str) or not text.strip():
        return None
    return _asked(text.strip(), chat=True) if chat and "prompt" in record else _continued(text, chat=chat)


def _fitting(question: Question, fits: Callable[[Question], bool]) -> Question | None:
    while not fits(question):
        if len(question.text) < 2:
            return None
        question = Question(text=question.text[: len(question.text) // 2])
    return question


def _conversation(messages: list[dict[str, Any]]) -> Question | None:
    """Up to the last turn of the user that comes before any tool: tools are rendered by each program in its own way."""
    plain = []
    for message in messages:
        if message.get("role") not in ("system", "user", "assistant") or message.get("tool_calls"):
            break
        plain.append({"role": message["role"], "content": message["content"]})
    while plain and plain[-1]["role"] != "user":
        plain.pop()
    return Question(messages=tuple(plain)) if plain else None


def _continued(text: str, *, chat: bool = False) -> Question | None:
    """The beginning of a text, cut between words."""
    start = text.strip()[:BEGINNING]
    start = start.rpartition(" ")[0] or start
    return _asked(start, chat=chat) if start else None


def _asked(text: str, *, chat: bool) -> Question:
    return Question(messages=({"role": "user", "content": text},)) if chat else Question(text=text)


def _text_of(messages: list[dict[str, Any]]) -> str:
    return "\n".join(str(message.get("content") or "") for message in messages)


def _records(dataset: Path) -> Iterator[dict[str, Any]]:
    for split in ("eval", "test", "train"):
        for file in sorted((dataset / split).glob("*.jsonl")):
            with open(file, encoding="utf-8", errors="surrogatepass") as stream:
                for line in stream:
                    yield json.loads(line)
