"""Records for learning from preferences and from rewards.

    Preference   {"prompt": ..., "chosen": ..., "rejected": ...}   all three text, or all three lists of messages
                 {"chosen": ..., "rejected": ...}                  the prompt is what both begin with, whether or not it
                                                                   also stands in the field prompt
    UnpairedPreference   {"prompt": ..., "completion": ..., "label": true}   both text, or both lists of messages
    Prompt       {"prompt": ...}, optionally "answer"              text, or a list of messages

These are the forms that TRL documents. A pair of two equal answers prefers nothing, so it is passed over like an empty text.
"""

from __future__ import annotations

from typing import Any

from trainyard.trainer.data.messages import Record, check_messages, clean, parsed, shown, with_tools
from trainyard.trainer.data.row import Fault, Row

_LABELS = {"true": True, "1": True, "false": False, "0": False}
"""CSV has no truth values, and some data sets write numbers."""


def check_preference(row: Row) -> Record | Fault | None:
    """Prompt, chosen and rejected, whichever form the record has."""
    chosen, rejected = parsed(row.value["chosen"]), parsed(row.value["rejected"])
    prompt = parsed(row.value.get("prompt"))
    if isinstance(prompt, str) and _begins_with(chosen, prompt) and _begins_with(rejected, prompt):
        prompt = None
    parts = {"chosen": chosen, "rejected": rejected} | ({"prompt": prompt} if prompt is not None else {})
    for field, part in parts.items():
        if isinstance(part, list):
            if fault := check_messages(part, row.place, field):
                return fault
        elif not isinstance(part, str):
            return Fault(row.place, f"field {field}: expected a string or a list of messages, found {shown(part)}")
    if len({type(part) for part in parts.values()}) > 1:
        return Fault(
            row.place,
            f"fields {', '.join(sorted(parts))}: must be all text or all lists of messages; where the lists begin with the "
            "prompt, remove the field prompt",
        )
    if isinstance(chosen, list):
        chosen, rejected = clean(chosen), clean(rejected)
        prompt = clean(prompt) if prompt is not None else None
        if prompt and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if chosen == rejected:
        return None
    if prompt is None:
        cut = _shared_messages(chosen, rejected) if isinstance(chosen, list) else _shared_text(chosen, rejected)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    if isinstance(chosen, list) and not prompt:
        return Fault(row.place, "fields chosen, rejected: they do not begin with a common prompt; add the field prompt")
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            return Fault(row.place, f"field {field}: is empty, so there is no answer to compare; remove the record")
        if isinstance(answer, list) and answer[0]["role"] != "assistant":
            return Fault(
                row.place,
                f"field {field}: the answer begins with role {answer[0]['role']}, expected assistant; if it repeats "
                "the prompt, remove the field prompt",
            )
    record: Record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return with_tools(record, row) if isinstance(chosen, list) else record


def check_unpaired(row: Row) -> Record | Fault | None:
    """Prompt, completion, and whether the completion was found good."""
    prompt, completion = parsed(row.value["prompt"]), parsed(row.value["completion"])
    for field, part in (("prompt", prompt), ("completion", completion)):
        if isinstance(part, list):
            if fault := check_messages(part, row.place, field):
                return fault
        elif not isinstance(part, str):
            return Fault(row.place, f"field {field}: expected a string or a list of messages, found {shown(part)}")
    if type(prompt) is not type(completion):
        return Fault(row.place, "fields prompt, completion: must be both text or both lists of messages")
    if not completion:
        return Fault(row.place, "field completion: is empty, so there is no answer to judge; remove the record")
    if isinstance(completion, list) and completion[0]["role"] != "assistant":
        told = f"the answer begins with role {completion[0]['role']}, expected assistant"
        return Fault(row.place, f"field completion: {told}; what comes before it belongs into the field prompt")
    label = _LABELS.get(str(row.value["label"]).lower())
    if label is None:
        found = shown(row.value["label"])
        return Fault(row.place, f"field label: expected true (a good answer) or false (a bad one), found {found}")
    record: Record = {"prompt": prompt, "completion": completion, "label": label}
    if isinstance(prompt, list):
        record |= {"prompt": clean(prompt), "completion": clean(completion)}
        return with_tools(record, row)
    return record


def check_prompt(row: Row) -> Record | Fault | None:
    """The prompt and what a right answer would be, if the record tells it."""
    value, answer = parsed(row.value["prompt"]), row.value.get("answer")
    if isinstance(value, list):
        if fault := check_messages(value, row.place, "prompt"):
            return fault
        value = clean(value)
    elif not isinstance(value, str):
        return Fault(row.place, f"field prompt: expected a string or a list of messages, found {shown(value)}")
    if answer is not None and not isinstance(answer, str | int | float):
        return Fault(row.place, f"field answer: expected a string or a number, found {shown(answer)}")
    if not value:
        return None
    record: Record = {"prompt": value} | ({"answer": str(answer)} if answer is not None else {})
    return with_tools(record, row) if isinstance(value, list) else record


def _begins_with(answer: Any, prompt: str) -> bool:
    """Whether a conversation begins with the prompt that stands beside it once more, as a text."""
    first = answer[0] if isinstance(answer, list) and answer else None
    return isinstance(first, dict) and first.get("role") == "user" and first.get("content") == prompt


def _shared_messages(chosen: list[Any], rejected: list[Any]) -> int:
    """Messages that both begin with, without the assistant's at the end: they belong to the answers."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    while count and (count == len(chosen) or count == len(rejected) or chosen[count - 1]["role"] == "assistant"):
        count -= 1
    return count


def _shared_text(chosen: str, rejected: str) -> int:
    """Characters that both begin with, up to the last space: the answers keep it, as completions do."""
    count = next((n for n, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    if count is None or not (chosen[count].isspace() and rejected[count].isspace()):
        common = chosen[: min(len(chosen), len(rejected)) if count is None else count]
        count = max((n for n, character in enumerate(common) if character.isspace()), default=0)
    return len(chosen[:count].rstrip())
