"""Turning one record format into another, where the meaning allows it.

    from \\ to         Text  PromptCompletion  Messages  Preference  Prompt  TRM  TrainingExample
    Text               =     -                 -         -           -       -    -
    PromptCompletion   yes   =                 yes       -           yes     -    yes
    Messages           yes   last answer       =         -           yes     -    last answer
    Preference         yes   chosen            chosen    =           yes     -    chosen
    UnpairedPref.      yes   yes               yes       -           yes     -    yes
    Prompt             yes   -                 -         -           =       -    -
    TRM                yes   yes               yes       -           yes     =    yes
    TrainingExample    yes   yes               yes       -           yes     -    =
    TunixSFT           yes   last answer       yes       -           yes     -    last answer

Of unpaired preferences only the good answers become something else. Nothing is invented: what has no answer does not get
one, and nothing becomes a preference or a chain of reasoning that was none. Everything goes through two shapes, a list of
messages and a pair of texts. A prompt keeps what its answer was, for rewards that compare with it.
"""

from __future__ import annotations

import json
from typing import Any

from trainyard.api.run.methods import METHODS, PLAIN
from trainyard.api.run.selection import RecordFormat
from trainyard.trainer.data.messages import Record, is_learned
from trainyard.trainer.data.reasoning import gemma_messages

TO: dict[str, tuple[str, ...]] = {
    "Text": (),
    "PromptCompletion": ("Text", "Messages", "Prompt", "TrainingExample"),
    "Messages": ("Text", "PromptCompletion", "Prompt", "TrainingExample"),
    "Preference": ("Text", "PromptCompletion", "Messages", "Prompt", "TrainingExample"),
    "UnpairedPreference": ("Text", "PromptCompletion", "Messages", "Prompt", "TrainingExample"),
    "Prompt": ("Text",),
    "TRM": ("Text", "PromptCompletion", "Messages", "Prompt", "TrainingExample"),
    "TrainingExample": ("Text", "PromptCompletion", "Messages", "Prompt"),
    "TunixSFT": ("Text", "PromptCompletion", "Messages", "Prompt", "TrainingExample"),
}
"""What each format can become, beside itself."""
RUN_TOOL = {
    "type": "function",
    "function": {
        "name": "run_command",
        "description": "Run a command on the operator's machine and read what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command line."}},
            "required": ["command"],
        },
    },
}


def target(record_format: RecordFormat, convert_to: RecordFormat | None, method: str | None) -> RecordFormat | None:
    """The format that records of a dataset are trained in; None if the method cannot learn from it.

    `method` is None where nothing is trained; the records then stay as they are unless `convert_to` says otherwise.
    """
    wanted = convert_to or record_format
    if wanted != record_format and wanted not in TO[record_format]:
        return None
    if method is None:
        return wanted
    learned = METHODS[method].learns.formats
    if wanted in learned:
        return wanted
    plain = PLAIN.get(wanted)
    return plain if plain in learned and convert_to is None else None


def convert(record: Record, source: str, to: str) -> Record | None:
    """The record in another format; None where this one has no such part (a conversation without an answer).

    Raises:
        ValueError: the formats do not convert into each other.
    """
    if source == to:
        return record
    if to not in TO[source]:
        raise ValueError(f"{source} does not become {to}")
    if source == "UnpairedPreference" and not record["label"]:
        return None  # a bad answer is not to be learned
    match to:
        case "Text":
            return {"text": as_text(record, source)}
        case "Messages":
            return _as_messages(record, source)
        case "Prompt":
            return _as_prompt(record, source)
        case _:
            pair = _as_pair(record, source)
            if pair is None:
                return None
            prompt, completion = pair
            if to == "PromptCompletion":
                return {"prompt": prompt, "completion": completion, **_tools(record, prompt)}
            metadata = {"metadata": record["metadata"]} if "metadata" in record else {}
            return {"prompt": _flat(prompt), "response": _flat(completion), **metadata}


def as_text(record: Record, source: str) -> str:
    """Everything a record says, for training on plain text."""
    match source:
        case "TRM":
            return "\n\n".join([record["problem"], *numbered(record["reasoning_steps"]), record["solution"]])
        case "Messages":
            return _flat(record["messages"])
        case "TunixSFT":
            return _flat(gemma_messages(record))
        case "Prompt":
            return _flat(record["prompt"])
        case "Preference":
            return _joined(record["prompt"], record["chosen"])
        case "TrainingExample":
            return _joined(record["prompt"], record["response"])
        case _:
            return _joined(record["prompt"], record["completion"])


def numbered(steps: list[str]) -> list[str]:
    """Steps with their numbers, as one block, unless they carry them already."""
    lines = [step if step[:1].isdigit() else f"{n}. {step}" for n, step in enumerate(steps, start=1)]
    return ["\n".join(lines)] if lines else []


def _as_pair(record: Record, source: str) -> tuple[Any, Any] | None:
    """Prompt and answer: two texts, or two lists of messages."""
    match source:
        case "PromptCompletion" | "UnpairedPreference":
            return record["prompt"], record["completion"]
        case "TrainingExample":
            # Prompt and answer are one text for the model, and these records say nothing about what stands between them.
            prompt = record["prompt"]
            return prompt if prompt[-1:].isspace() else f"{prompt}\n", record["response"]
        case "Preference":
            return record["prompt"], record["chosen"]
        case "TRM":
            first = f"\n\nFirst answer: {record['initial_answer']}" if record["initial_answer"].strip() else ""
            answer = "\n\n".join([*numbered(record["reasoning_steps"]), record["solution"]])
            return f"{record['problem']}{first}\n\n", answer
        case _:
            messages = record["messages"] if source == "Messages" else gemma_messages(record)
            last = max((n for n, message in enumerate(messages) if is_learned(message)), default=0)
            return (messages[:last], messages[last : last + 1]) if last else None


def _as_messages(record: Record, source: str) -> Record | None:
    if source == "TunixSFT":
        return {"messages": gemma_messages(record)}
    if source == "TRM" and record["metadata"].get("type") == "function_call" and (call := _call(record["solution"])):
        asked = {"role": "user", "content": record["problem"]}
        answer = {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]}
        return {"messages": [asked, answer], "tools": [RUN_TOOL]}
    pair = _as_pair(record, source)
    if pair is None:
        return None
    return {"messages": [*_turns(pair[0], "user"), *_turns(pair[1], "assistant")], **_tools(record, pair[0])}


def _call(solution: str) -> Any:
    """The function call that a solution is; None if it is a text like others."""
    try:
        call = json.loads(solution)
    except (ValueError, RecursionError):
        return None
    return call if isinstance(call, dict) and "name" in call else None


def _as_prompt(record: Record, source: str) -> Record | None:
    pair = _as_pair(record, source)
    if pair is None:
        return None
    return {"prompt": pair[0], "answer": _flat(pair[1]).strip(), **_tools(record, pair[0])}


def _tools(record: Record, prompt: Any) -> Record:
    """The tools of a record that stays a conversation."""
    return {"tools": record["tools"]} if "tools" in record and isinstance(prompt, list) else {}


def _turns(part: Any, role: str) -> list[Record]:
    return part if isinstance(part, list) else [{"role": role, "content": part.strip()}]


def _joined(first: Any, second: Any) -> str:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}{second}" if first[-1:].isspace() else f"{first}\n{second}"
    return f"{_flat(first)}\n\n{_flat(second)}"


def _flat(part: Any) -> str:
    """Text of a text or of messages; calls of tools as JSON."""
    if isinstance(part, str):
        return part
    return "\n\n".join(filter(None, map(_said, part)))


def _said(message: Record) -> str:
    calls = message.get("tool_calls")
    return "\n".join(filter(None, (message.get("content"), json.dumps(calls, ensure_ascii=False) if calls else "")))
