"""Lists of messages in a record, and how a value is shown in a fault: what the checks of all formats have in common."""

from __future__ import annotations

import difflib
import json
from typing import Any

from trainyard.trainer.data.message_forms import usual
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.tool_calls import call_fault, calls_of, described, tidied

ROLES = ("system", "developer", "user", "assistant", "tool")

Record = dict[str, Any]


def check_messages(messages: list[Any], place: str, field: str) -> Fault | None:
    """The first fault in a list of messages."""
    if not messages:
        return Fault(place, f"field {field}: is empty")
    for index, message in enumerate(messages):
        here = f"field {field}[{index}]"
        if not isinstance(message, dict):
            return Fault(place, f"{here}: expected an object with role and content, found {shown(message)}")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            close = difflib.get_close_matches(str(role), ROLES, n=1, cutoff=0.6)
            advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(ROLES)}"
            return Fault(place, f"{here}.role: {shown(role)} is not a role; {advice}")
        calls = calls_of(message)
        if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            return Fault(place, f"{here}.tool_calls: expected a list of calls, found {shown(calls)}")
        for number, call in enumerate(calls or []):
            if fault := call_fault(call):
                return Fault(place, f"{here}.tool_calls[{number}]{fault[0]}: {fault[1]}, found {shown(fault[2])}")
        if not isinstance(content, str) and not (content is None and calls):
            wanted = "parts that are text, which is what is learned" if isinstance(content, list) else "a string"
            return Fault(place, f"{here}.content: expected {wanted}, found {shown(content)}")
        if (weight := message.get("weight")) is not None and (isinstance(weight, bool) or weight not in (0, 1)):
            return Fault(place, f"{here}.weight: {shown(weight)} is neither 0 (not learned) nor 1")
        if (train := message.get("train")) is not None and not isinstance(train, bool):
            return Fault(place, f"{here}.train: {shown(train)} is neither true nor false")
    return None


def clean(messages: list[Any]) -> list[Record]:
    """Without what Parquet and JSON writers add to fill a schema, and with the arguments of calls as objects."""
    return [tidied(message) for message in messages]


def is_learned(message: Record) -> bool:
    """Whether the assistant's words in a message are to be learned: `weight: 0` and `train: false` say no."""
    return message["role"] == "assistant" and message.get("weight") != 0 and message.get("train") is not False


def with_tools(record: Record, row: Row) -> Record | Fault:
    """The record with the tools of its row, which the template shows to the model."""
    tools = described(row.value.get("tools"))
    if isinstance(tools, str):
        return Fault(row.place, f"field tools: {tools}, found {shown(row.value['tools'])}")
    return {**record, "tools": tools} if tools else record


def parsed(value: Any) -> Any:
    """A text, or messages in their usual form. CSV and some Parquet files hold messages as JSON text."""
    if isinstance(value, str) and value[:2] in ("[{", "[ "):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return [usual(message) for message in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A value in a message, cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
