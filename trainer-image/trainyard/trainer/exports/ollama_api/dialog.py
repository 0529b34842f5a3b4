"""A chat template as Ollama's: found out by asking the model's own template, not by reading it.

Ollama does not run the template in a GGUF. It compares it with those it has, and where it believes it knows one it takes its
own, which may leave out a system turn that the model was trained with; where it knows none, the model is asked without any.
So the export sends a template. A Jinja program cannot be translated in general, but what it does to a conversation can be
seen: rendering a few with marks in the place of what people say leaves the text between the marks. If that is the same each
time a turn of one kind follows one of another, the conversation is a string of such pieces, and that can be written for
Ollama. Whether it holds is proved afterwards, on the prompts of the handover check and by the server's own rendering.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""A conversation; with the template asking for an answer, or not."""
MARKS = {"system": "Xsystem0X", "user": "Xuser0X", "assistant": "Xassistant0X"}
TURNS = ("user", "assistant", "user", "assistant", "user")


@dataclass(frozen=True)
class Dialog:
    """The text between what people say."""

    before_system: str
    after_system: str
    without_system: str
    """What a conversation begins with that has no system turn, where that is no system turn itself."""
    default_system: str
    """What the template says as the system where nobody else does; empty if nothing."""
    before_user: str
    after_user: str
    before_assistant: str
    after_assistant: str
    asking: str
    """After the last turn, for the answer."""

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """As Ollama will."""
        if messages[0]["role"] != "system" and self.default_system:
            messages = [{"role": "system", "content": self.default_system}, *messages]
        text = "" if messages[0]["role"] == "system" else self.without_system
        for message in messages:
            before, after = self._around(str(message["role"]))
            text += before + str(message["content"]) + after
        return text + self.asking

    def without(self, bos: str) -> Dialog:
        """For a server that begins each prompt with this token by itself."""
        return replace(
            self,
            before_system=self.before_system.removeprefix(bos),
            without_system=self.without_system.removeprefix(bos),
        )

    def template(self) -> str:
        """In Go's language. Texts stand as strings in quotes, because between braces blanks at their ends would not be safe."""
        head = "{{- range $i, $m := .Messages }}"
        if self.without_system:
            head += f'{{{{- if and (eq $i 0) (ne .Role "system") }}}}{_text(self.without_system)}{{{{- end }}}}'
        turns = ""
        for number, role in enumerate(("system", "user", "assistant")):
            before, after = self._around(role)
            word = "if" if number == 0 else "else if"
            turns += f'{{{{- {word} eq .Role "{role}" }}}}{_text(before)}{{{{ .Content }}}}{_text(after)}'
        return f"{head}{turns}{{{{- end }}}}{{{{- end }}}}{_text(self.asking)}"

    def _around(self, role: str) -> tuple[str, str]:
        return {
            "system": (self.before_system, self.after_system),
            "user": (self.before_user, self.after_user),
            "assistant": (self.before_assistant, self.after_assistant),
        }[role]


PLAIN = "{{ .Prompt }}"
"""For a model that knows no conversations."""


def dialog_of(render: Render) -> Dialog | None:
    """What the template does; None if it does more than to put texts between turns."""
    alone = _pieces(render, TURNS)
    led = _pieces(render, ("system", *TURNS))
    if alone is None:
        return None
    answered, followed, asked = alone[1], alone[2], alone[-1]
    if alone[3] != answered or alone[4] != followed:
        return None
    if led is not None and led[2:] != alone[1:]:
        return None
    starts = [alone[0], followed, *([led[1]] if led else [])]
    # Where a turn ends and the next begins shows where nothing follows; without that, what all cases have in common does.
    closed = _pieces(render, TURNS[:2], ask=False)
    before_user = followed.removeprefix(closed[-1]) if closed else ""
    if not (closed and followed.startswith(closed[-1]) and all(start.endswith(before_user) for start in starts)):
        before_user = _common_end(starts)
    waiting = _pieces(render, TURNS, ask=False)
    after_user = waiting[-1] if waiting else ""
    if not (waiting and all(text.startswith(after_user) for text in (answered, asked))):
        after_user = _common_start([answered, asked])
    before_system = led[0] if led else ""
    after_system = led[1].removesuffix(before_user) if led else ""
    start, system = alone[0].removesuffix(before_user), ""
    if led and start != before_system and start.startswith(before_system) and start.endswith(after_system):
        system = start[len(before_system) : len(start) - len(after_system)]
        start = ""
    return Dialog(
        before_system=before_system,
        after_system=after_system,
        without_system=start,
        default_system=system,
        before_user=before_user,
        after_user=after_user,
        before_assistant=answered.removeprefix(after_user),
        after_assistant=followed.removesuffix(before_user),
        asking=asked.removeprefix(after_user),
    )


def _pieces(render: Render, roles: Sequence[str], *, ask: bool = True) -> list[str] | None:
    """The text around the marks; None if the template refuses the conversation or shows a mark not exactly once."""
    marks = [MARKS[role].replace("0", str(number)) for number, role in enumerate(roles)]
    try:
        text = render([{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)], ask)
    except Exception:  # a template is a program: it may raise whatever it likes
        return None
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        pieces.append(piece)
    return [*pieces, text]


def _common_start(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    for size in range(len(shortest), 0, -1):
        if all(text.startswith(shortest[:size]) for text in texts):
            return shortest[:size]
    return ""


def _common_end(texts: Sequence[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _text(text: str) -> str:
    """A string of Go; its escapes are those of JSON."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
