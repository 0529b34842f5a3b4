"""What is asked, and what is said to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEW_TOKENS = 30
"""Of an answer; an error of the positions shows well before. Ollama breaks one off that says the same 31 times."""


def longest_answer(positions: int | None) -> int:
    """Tokens asked for of a model with so many positions: at their end llama.cpp and Ollama stop, where transformers goes on."""
    return NEW_TOKENS if positions is None else max(1, min(NEW_TOKENS, positions // 2))


@dataclass(frozen=True)
class Question:
    """A conversation that waits for an answer, or the beginning of a text where the model knows no conversations."""

    messages: tuple[Mapping[str, Any], ...] = ()
    text: str = ""

    @property
    def shown(self) -> str:
        """For people."""
        return str(self.messages[-1]["content"]) if self.messages else self.text


@dataclass(frozen=True)
class Answer:
    """One program's answer, always of the likeliest token each time. None where a program does not tell."""

    prompt: str
    """As the template rendered it."""
    ids: tuple[int, ...]
    """Tokens of the answer, without those that end it."""
    text: str
    ended: bool
    """By itself, not by the limit."""
    prompt_ids: tuple[int, ...] | None = None
    prompt_count: int | None = None
