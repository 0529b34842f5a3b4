"""Records of problems with solutions: TRM, TrainingExample and TunixSFT.

    TRM               problem, initial_answer (may be empty: there is no first guess), solution, reasoning_steps (a list of
                      texts), metadata with source, query, type and timestamp
    TrainingExample   prompt, response; optionally id and metadata
    TunixSFT          prompts: a conversation in Gemma's turns; final_answer, where the conversation ends with a question

A timestamp is RFC 3339. One without a zone is taken as UTC and written with Z.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from trainyard.trainer.data.messages import Record, shown
from trainyard.trainer.data.row import Fault, Row

METADATA = ("source", "query", "type", "timestamp")
_TURN = re.compile(r"<start_of_turn>(\w+)\n(.*?)(?:<end_of_turn>|\Z)", re.S)
_ROLES = {"user": "user", "model": "assistant", "system": "system", "developer": "developer", "tool": "tool"}


def check_reasoning(row: Row, record_format: str) -> Record | Fault:
    """The record in its normal form, or the fault that it is. The fields are there."""
    match record_format:
        case "TRM":
            return _trm(row)
        case "TrainingExample":
            return _training_example(row)
        case "TunixSFT":
            return _tunix(row)
    raise ValueError(f"{record_format} is checked elsewhere")


def _trm(row: Row) -> Record | Fault:
    value = row.value
    for field in ("problem", "initial_answer", "solution"):
        if not isinstance(value[field], str):
            return Fault(row.place, f"field {field}: expected a string, found {shown(value[field])}")
    for field in ("problem", "solution"):
        if not value[field].strip():
            return Fault(row.place, f"field {field}: is empty, so there is nothing to learn; remove the record")
    steps = value["reasoning_steps"]
    if not isinstance(steps, list):
        return Fault(row.place, f"field reasoning_steps: expected a list of strings, found {shown(steps)}")
    for index, step in enumerate(steps):
        if not isinstance(step, str):
            return Fault(row.place, f"field reasoning_steps[{index}]: expected a string, found {shown(step)}")
    metadata = value["metadata"]
    if not isinstance(metadata, dict):
        return Fault(row.place, f"field metadata: expected an object, found {shown(metadata)}")
    for key in METADATA:
        if not isinstance(metadata.get(key), str):
            found = f"found {shown(metadata[key])}" if key in metadata else "it is missing; an empty text is allowed"
            return Fault(row.place, f"field metadata.{key}: expected a string, {found}")
    stamp = utc(metadata["timestamp"])
    if stamp is None:
        return Fault(
            row.place,
            f"field metadata.timestamp: {shown(metadata['timestamp'])} is no time; write it as 2025-12-28T10:00:00Z",
        )
    return {
        **{field: value[field] for field in ("problem", "initial_answer", "solution")},
        "reasoning_steps": list(steps),
        "metadata": {**metadata, "timestamp": stamp},
    }


def _training_example(row: Row) -> Record | Fault:
    value = row.value
    for field in ("prompt", "response"):
        if not isinstance(value[field], str):
            return Fault(row.place, f"field {field}: expected a string, found {shown(value[field])}")
        if not value[field].strip():
            return Fault(row.place, f"field {field}: is empty, so there is nothing to learn; remove the record")
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return Fault(row.place, f"field metadata: expected an object, found {shown(metadata)}")
    return {"prompt": value["prompt"], "response": value["response"], **({"metadata": metadata} if metadata else {})}


def _tunix(row: Row) -> Record | Fault:
    value = row.value
    prompts, answer = value["prompts"], value.get("final_answer")
    if not isinstance(prompts, str):
        return Fault(row.place, f"field prompts: expected a string, found {shown(prompts)}")
    turns = gemma_turns(prompts)
    if not turns:
        return Fault(
            row.place,
            "field prompts: has no turn; expected <start_of_turn>user, the text, <end_of_turn> and so on. For plain text use "
            "format TrainingExample",
        )
    if not any(body.strip() for _, body in turns):
        return Fault(row.place, "field prompts: has no text in any turn; remove the record")
    for role, _ in turns:
        if role not in _ROLES:
            return Fault(row.place, f"field prompts: the role {role} is unknown; known are {', '.join(_ROLES)}")
    if answer is not None and not isinstance(answer, str):
        return Fault(row.place, f"field final_answer: expected a string, found {shown(answer)}")
    if not (turns[-1][0] == "model" and turns[-1][1].strip()) and not (answer or "").strip():
        return Fault(row.place, "field final_answer: is missing, and prompts does not end with an answer of the model")
    return {"prompts": prompts, **({"final_answer": answer} if answer else {})}


def gemma_turns(text: str) -> list[tuple[str, str]]:
    """`(role, text)` of each turn. A last turn without an end is one that the model is to write."""
    return [(role, body.strip("\n")) for role, body in _TURN.findall(text)]


def gemma_messages(record: Record) -> list[Record]:
    """A TunixSFT record as messages."""
    turns = gemma_turns(record["prompts"])
    messages = [{"role": _ROLES[role], "content": body} for role, body in turns if body.strip()]
    if messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": record["final_answer"]})
    return messages


def utc(text: str) -> str | None:
    """The time in UTC with Z; an empty text stays empty; None for what is no time."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat().replace("+00:00", "Z")
