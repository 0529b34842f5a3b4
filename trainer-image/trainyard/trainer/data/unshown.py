"""What a conversation holds and the model's chat template does not show, so that nobody can learn it.

Many templates know no tools, no calls and no reasoning; they pass over them without a word, and an answer that is a call
alone becomes an empty one. Whether a template shows something is asked with the conversation itself: whether its text is
another without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainyard.trainer.data.messages import Record

TOOLS, CALLS, REASONING = "tools", "toolCalls", "reasoning"
_FIELDS = {CALLS: ("tool_calls",), REASONING: ("reasoning_content", "reasoning", "thinking")}


class Unshown:
    """Asks one template, and does not ask again for what it was seen to show.

    Args:
        render: the text of a conversation with its tools; None where the template refuses it.
    """

    def __init__(self, render: Callable[[Sequence[Record], Any], str | None]) -> None:
        self._render = render
        self._shown: set[str] = set()

    def of(self, messages: Sequence[Record], tools: Any, whole: str) -> list[str]:
        """Which parts the conversation has that do not show in its text."""
        found = [part for part, fields in _FIELDS.items() if any(m.get(f) for m in messages for f in fields)]
        found += [TOOLS] if tools else []
        return [part for part in found if not self._shows(part, messages, tools, whole)]

    def is_silent(self, messages: Sequence[Record], index: int, tools: Any, whole: str) -> bool:
        """Whether a message is nothing but calls, and they do not show."""
        message = messages[index]
        if CALLS in self._shown or not message.get("tool_calls") or (message.get("content") or "").strip():
            return False
        without = [*messages[:index], _without(message, CALLS), *messages[index + 1 :]]
        return self._render(without, tools) == whole

    def _shows(self, part: str, messages: Sequence[Record], tools: Any, whole: str) -> bool:
        if part not in self._shown:
            if part == TOOLS:
                other = self._render(messages, None)
            else:
                other = self._render([_without(message, part) for message in messages], tools)
            if other != whole:
                self._shown.add(part)
        return part in self._shown


def _without(message: Record, part: str) -> Record:
    kept = {key: value for key, value in message.items() if key not in _FIELDS[part]}
    return kept if kept.get("content") is not None else kept | {"content": ""}
