"""Messages as data sets have them, in the one form that chat templates know: `role`, `content`, `tool_calls`.

    {"from": "human", "value": "..."}                             ShareGPT; also gpt, system, tool, function_call, observation
    {"role": "user", "content": [{"type": "text", "text": "..."}]}    parts, as in multimodal APIs, where all of them are text
    {"role": "assistant", "function_call": {...}}, {"role": "function", ...}   OpenAI's form before tools

What is in none of these forms stays as it is, for `check_messages` to judge.
"""

from __future__ import annotations

from typing import Any

from trainyard.trainer.data.tool_calls import as_json

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
"""Role by ShareGPT's `from`."""
TEXT = ("text", "input_text", "output_text")
"""Types of a part that is text."""


def usual(message: Any) -> Any:
    """The message in the form of chat templates."""
    if not isinstance(message, dict):
        return message
    found = dict(message)
    if found.get("role") is None and isinstance(speaker := found.get("from"), str) and "value" in found:
        del found["from"]
        found |= {"role": SPEAKERS.get(speaker.lower(), speaker), "content": found.pop("value")}
        if speaker.lower() == "function_call":
            found |= {"content": None, "tool_calls": _calls(found["content"])}
    if isinstance(text := _joined(found.get("content")), str):
        found["content"] = text
    if found.get("role") == "function":
        found["role"] = "tool"
    if (call := found.pop("function_call", None)) is not None:
        found["tool_calls"] = found.get("tool_calls") or [call]
    return found


def _calls(value: Any) -> Any:
    calls = as_json(value) if isinstance(value, str) else value
    return calls if isinstance(calls, list) else [calls]


def _joined(content: Any) -> Any:
    """The text of a content in parts, if it has no other parts."""
    if not isinstance(content, list) or not content:
        return content
    texts = [
        p["text"] for p in content if isinstance(p, dict) and p.get("type") in TEXT and isinstance(p.get("text"), str)
    ]
    return "".join(texts) if len(texts) == len(content) else content
