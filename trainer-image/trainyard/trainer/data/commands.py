"""What an answer would have done: its tool call, or the first shell command in it.

Two answers that say the same in other words are different texts and the same command. Calls are found as JSON, whatever marks
a template puts around them; arguments may be an object or a text that holds one.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.S)
_SHELLS = ("", "sh", "bash", "shell", "zsh", "console", "terminal", "fish")
_INLINE = re.compile(r"`([^`\n]+)`")
_PROMPT = re.compile(r"^\s*(?:\$|#|>)\s+(?=\S)")
_DOLLAR = re.compile(r"^\s*\$\s+(?=\S)")
MOST_BEGINNINGS = 200
"""Braces that are tried as the beginning of a call."""

Command = tuple[Any, ...]
"""Compared as a whole."""


def command_of(answer: str) -> Command | None:
    """The call, or else the command; None where there is neither."""
    return _call_in(answer) or _shell_in(answer)


def _call_in(text: str) -> Command | None:
    decoder = json.JSONDecoder()
    for number, found in enumerate(re.finditer(r"[\[{]", text)):
        if number == MOST_BEGINNINGS:
            break
        try:
            value, _ = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        if (call := _call(value)) is not None:
            return call
    return None


def _call(value: Any) -> Command | None:
    if isinstance(value, list):
        calls = [_call(one) for one in value]
        return ("calls", *calls) if calls and None not in calls and len(calls) > 1 else calls[0] if calls else None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        return _call(value["function"])
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return ("call", name, json.dumps(arguments, sort_keys=True, ensure_ascii=False))


def _shell_in(text: str) -> Command | None:
    for language, block in _FENCE.findall(text):
        if language.lower() in _SHELLS and (command := _first_line(block)):
            return _words(command)
    lines = text.strip().splitlines()
    if dollar := next((line for line in lines if _DOLLAR.match(line)), None):
        return _words(_PROMPT.sub("", dollar))
    if inline := _INLINE.search(text):
        return _words(inline[1])
    # An answer of one line is the command; of several, nobody can tell which.
    return _words(lines[0]) if len(lines) == 1 else None


def _first_line(block: str) -> str | None:
    """The first command of a block, with the lines that it goes on in."""
    parts: list[str] = []
    for line in block.splitlines():
        stripped = line.strip()
        if not parts:
            if _DOLLAR.match(line):
                stripped = _PROMPT.sub("", line).strip()
            elif not stripped or stripped.startswith("#"):
                continue
        if stripped.endswith("\\"):
            parts.append(stripped[:-1].strip())
            continue
        return " ".join([*parts, stripped])
    return " ".join(parts) or None


def _words(command: str) -> Command | None:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return ("shell", *words) if words else None
