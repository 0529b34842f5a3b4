"""Lists of messages in a record, and how a value is shown in a fault: what the checks of all formats have in common."""

from __future__ import annotations

import difflib
import json
from typing import Any

from trainyard.trainer.data.readers import Fault

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
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            return Fault(place, f"{here}.content: expected a string, found {shown(content)}")
    return None


def clean(messages: list[Any]) -> list[Record]:
    """Without fields that are null, as Parquet and JSON writers add them to fill a schema."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def parsed(value: Any) -> Any:
    """CSV and some Parquet files hold messages as JSON text."""
    if isinstance(value, str) and value[:2] in ("[{", "[ "):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def shown(value: Any) -> str:
    """A value in a message, cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
