"""What a record must hold, by the dataset's format, and the one form in which everything after this sees it.

    Text               {"text": "..."}
    PromptCompletion   {"prompt": "...", "completion": "..."}     or both as lists of messages
    Messages           {"messages": [{"role": "user", "content": "..."}, ...]}     optionally "tools"
                       {"conversations": [{"from": "human", "value": "..."}, ...]}  the same, see message_forms.py
    Preference, UnpairedPreference, Prompt     see preference.py
    TRM                {"problem", "initial_answer", "solution", "reasoning_steps": [...], "metadata": {...}}
    TrainingExample    {"prompt": "...", "response": "..."}
    TunixSFT           {"prompts": "<start_of_turn>user ...", "final_answer": "..."}

Every format of messages takes "tools", and a message of the assistant with `weight: 0` or `train: false` is not learned.
Further fields of a record are ignored, because data sets carry ids and sources. Empty text in a Text data set is not a
fault, only nothing to learn from.
"""

from __future__ import annotations

import difflib
from typing import Any

from trainyard.trainer.data.messages import Record, check_messages, clean, parsed, shown, with_tools
from trainyard.trainer.data.preference import check_preference, check_prompt, check_unpaired
from trainyard.trainer.data.reasoning import check_reasoning
from trainyard.trainer.data.row import Fault, Row

FIELDS = {
    "Text": ("text",),
    "PromptCompletion": ("prompt", "completion"),
    "Messages": ("messages",),
    "Preference": ("chosen", "rejected"),
    "UnpairedPreference": ("prompt", "completion", "label"),
    "Prompt": ("prompt",),
    "TRM": ("problem", "initial_answer", "solution", "reasoning_steps", "metadata"),
    "TrainingExample": ("prompt", "response"),
    "TunixSFT": ("prompts",),
}
OTHER_NAMES = {"messages": "conversations"}
"""How data sets in ShareGPT's form call a field."""
FURTHER = {
    "PromptCompletion": ("tools",),
    "Messages": ("tools", *OTHER_NAMES.values()),
    "Preference": ("prompt", "tools"),
    "UnpairedPreference": ("tools",),
    "Prompt": ("answer", "tools"),
    "TrainingExample": ("metadata",),
    "TunixSFT": ("final_answer",),
}
"""Fields that are read if they are there."""
COLLECTED = ("series", "log", "trace", "runbook_entry")
"""Kinds of collected records that are no training records by themselves."""


def check(row: Row, record_format: str) -> Record | Fault | None:
    """The record in its normal form, the fault that it is, or None for an empty one."""
    try:
        found = _checked(row, record_format)
        half = _half_of_a_character(found) if isinstance(found, dict) else None
    except RecursionError:
        return Fault(row.place, "is nested too deeply")
    return Fault(row.place, f"field {half}; write the whole character, or remove it") if half else found


def _half_of_a_character(value: Any, path: str = "") -> str | None:
    """Where a text has half of a surrogate pair, which JSON can write (\\ud83d) and no tokenizer can read."""
    match value:
        case str():
            half = _half_in(value)
            return f"{path}: {half}" if half else None
        case dict():
            if half := next(filter(None, map(_half_in, map(str, value))), None):
                return f"{path}: a name in it {half}"
            inner = (_half_of_a_character(v, f"{path}.{k}" if path else str(k)) for k, v in value.items())
            return next(filter(None, inner), None)
        case list():
            inner = (_half_of_a_character(v, f"{path}[{n}]") for n, v in enumerate(value))
            return next(filter(None, inner), None)
    return None


def _half_in(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start]).strip("'")
        return f"has half of a surrogate pair ({half}) at character {error.start + 1}"
    return None


def _checked(row: Row, record_format: str) -> Record | Fault | None:
    for field, other in OTHER_NAMES.items():
        if field in FIELDS[record_format] and row.value.get(field) is None and other in row.value:
            row = Row(row.source, row.line, {**row.value, field: row.value[other]})
    value = row.value
    for field in FIELDS[record_format]:
        if field not in value or value[field] is None:
            if value.get("kind") in COLLECTED:
                text = f"a collected {value['kind']} is no record of format {record_format}: set generate, which makes examples of it"
                return Fault(row.place, text)
            return Fault(row.place, _missing(field, value, record_format))
    match record_format:
        case "Text":
            return _text(row)
        case "PromptCompletion":
            return _prompt_completion(row)
        case "Messages":
            return _messages(row)
        case "Preference":
            return check_preference(row)
        case "UnpairedPreference":
            return check_unpaired(row)
        case "Prompt":
            return check_prompt(row)
        case _:
            return check_reasoning(row, record_format)


def _text(row: Row) -> Record | Fault | None:
    text = row.value["text"]
    if not isinstance(text, str):
        return Fault(row.place, f"field text: expected a string, found {shown(text)}")
    return {"text": text} if text.strip() else None


def _prompt_completion(row: Row) -> Record | Fault | None:
    prompt, completion = parsed(row.value["prompt"]), parsed(row.value["completion"])
    if isinstance(prompt, list) and isinstance(completion, list):
        for field, messages in (("prompt", prompt), ("completion", completion)):
            if fault := check_messages(messages, row.place, field):
                return fault
        return with_tools({"prompt": clean(prompt), "completion": clean(completion)}, row)
    for field, part in (("prompt", prompt), ("completion", completion)):
        if not isinstance(part, str):
            return Fault(
                row.place, f"field {field}: expected a string (or both as lists of messages), found {shown(part)}"
            )
    if not completion:
        return Fault(row.place, "field completion: is empty, so there is nothing to learn; remove the record")
    return {"prompt": prompt, "completion": completion}


def _messages(row: Row) -> Record | Fault | None:
    messages = parsed(row.value["messages"])
    if not isinstance(messages, list):
        return Fault(row.place, f"field messages: expected a list of messages, found {shown(messages)}")
    if fault := check_messages(messages, row.place, "messages"):
        return fault
    if not any(message["role"] == "assistant" for message in messages):
        return Fault(row.place, "field messages: no message has role assistant, so there is nothing to learn")
    return with_tools({"messages": clean(messages)}, row)


def _missing(field: str, value: dict[str, Any], record_format: str) -> str:
    if field in value:
        return f"field {field}: is null"
    present = sorted(map(str, value))
    close = difflib.get_close_matches(field, present, n=1, cutoff=0.6)
    advice = f"did you mean to call {close[0]} so?" if close else f"the record has {', '.join(present) or 'no fields'}"
    others = [f for f, needed in FIELDS.items() if all(n in value for n in needed)]
    # A prompt alone is part of most formats, and says nothing where the answer is what is missing.
    others = [f for f in others if not set(FIELDS[f]) <= {*FIELDS[record_format], "prompt"}]
    other = max(others, key=lambda f: len(FIELDS[f]), default=None)
    if other:
        advice = f"the record looks like format {other}: set format: {other}"
    return f"field {field}: is missing, format {record_format} needs it; {advice}"
