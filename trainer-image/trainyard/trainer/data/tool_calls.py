"""Calls of tools and descriptions of tools, in the one form that chat templates know.

They come in many forms: arguments as JSON in a text (OpenAI's own) or as an object, whole lists as JSON in a text, with or
without the frame `{"type": "function", "function": ...}`, and, from Arrow and Parquet, padded with null: there every struct
has the fields of all structs. A record has them as objects in their frame, without that padding. A null that says something
stays: inside arguments that came as a text, and where a description of a tool lists values (`enum`, `default`, `const`,
`examples`).
"""

from __future__ import annotations

import json
from typing import Any

VALUES = ("enum", "default", "const", "examples")
"""Keys of a JSON schema that hold values and not schemas."""

Record = dict[str, Any]


def without_padding(value: Any, *, keep: tuple[str, ...] = ()) -> Any:
    """The value without keys whose value is null, at any depth; what lies under the keys of `keep` stays as it is."""
    match value:
        case dict():
            return {k: v if k in keep else without_padding(v, keep=keep) for k, v in value.items() if v is not None}
        case list():
            return [without_padding(item, keep=keep) for item in value]
    return value


def tidied(message: Record) -> Record:
    """A message without padding, its calls with their arguments as objects."""
    found: Record = without_padding(message)
    if isinstance(calls := calls_of(found), list):
        found["tool_calls"] = [_call(_framed(call)) for call in calls]
    return found


def _framed(tool: Any) -> Any:
    """A call or a description of a tool in the frame in which templates look for it."""
    if isinstance(tool, dict) and isinstance(tool.get("name"), str) and "function" not in tool:
        outside = {key: tool[key] for key in ("id", "type") if key in tool}
        inside = {key: value for key, value in tool.items() if key not in outside}
        return {"type": "function", **outside, "function": inside}
    return tool


def call_fault(call: Record) -> tuple[str, str, Any] | None:
    """What is wrong with a call: where in it, what was expected, what stands there."""
    function = call.get("function", call)
    path = ".function" if "function" in call else ""
    if not isinstance(function, dict):
        return path, "expected an object with name and arguments", function
    if not isinstance(name := function.get("name"), str) or not name:
        return f"{path}.name", "expected the name of a tool", name
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        arguments = as_json(arguments)
    if arguments and not isinstance(arguments, dict):
        return f"{path}.arguments", "expected an object, or one as JSON in a text", arguments
    return None


def calls_of(message: Record) -> Any:
    """The calls of a message, which may stand in a text."""
    calls = message.get("tool_calls")
    return as_json(calls) if isinstance(calls, str) else calls


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _call(call["function"])}
    if isinstance(text := call.get("arguments"), str):
        return {**call, "arguments": as_json(text) if text.strip() else {}}
    return call


def with_text_arguments(message: Record) -> Record:
    """The message with the arguments of its calls as text, for templates that expect that."""
    if "tool_calls" not in message:
        return message

    def call(one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        if isinstance(one.get("function"), dict):
            return {**one, "function": call(one["function"])}
        arguments = one.get("arguments")
        return {**one, "arguments": json.dumps(arguments, ensure_ascii=False)} if isinstance(arguments, dict) else one

    return {**message, "tool_calls": [call(one) for one in message["tool_calls"]]}


def described(tools: Any) -> list[Record] | str | None:
    """The tools of a record; None where it has none, or what is wrong with them."""
    tools = as_json(tools) if isinstance(tools, str) else tools
    if not tools:
        return None
    if not isinstance(tools, list):
        return "expected a list of tools"
    found = [as_json(tool) if isinstance(tool, str) else tool for tool in tools]
    wrong = next((n for n, tool in enumerate(found) if not isinstance(tool, dict)), None)
    if wrong is not None:
        return f"expected a list of objects, the one at {wrong} is none"
    return [_framed(without_padding(tool, keep=VALUES)) for tool in found]


def as_json(text: str) -> Any:
    """What a text holds as JSON; the text itself if it holds none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
