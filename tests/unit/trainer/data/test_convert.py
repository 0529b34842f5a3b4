"""Formats: what each asks of a record, and what becomes of it in another."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard.api.run.methods import METHODS
from trainyard.trainer.data.convert import TO, convert, target
from trainyard.trainer.data.formats import FIELDS, check
from trainyard.trainer.data.row import Row

TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
METADATA = {"source": "prometheus", "query": "up", "type": "metric_analysis", "timestamp": "2025-12-28T10:00:00"}
SAMPLES: dict[str, dict[str, Any]] = {
    "Text": {"text": "some words"},
    "PromptCompletion": {"prompt": "Why? ", "completion": "Because."},
    "Messages": {"messages": TALK},
    "Preference": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "UnpairedPreference": {"prompt": "Why?", "completion": "Because.", "label": True},
    "Prompt": {"prompt": "Why?"},
    "TRM": {
        "problem": "Analyse up.",
        "initial_answer": "",
        "solution": "All are up.",
        "reasoning_steps": ["Look at the values.", "All are 1."],
        "metadata": METADATA,
    },
    "TrainingExample": {"prompt": "Why?", "response": "Because."},
    "TunixSFT": {
        "prompts": "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "final_answer": "Because.",
    },
}


def checked(record_format: str, value: dict[str, Any] | None = None) -> dict[str, Any]:
    found = check(Row("f", 1, value or SAMPLES[record_format]), record_format)
    assert isinstance(found, dict), found
    return found


@pytest.mark.parametrize("source", FIELDS)
def test_every_format_accepts_its_sample_and_again_its_own_normal_form(source: str) -> None:
    assert checked(source, checked(source)) == checked(source)


@pytest.mark.parametrize(("source", "to"), [(source, to) for source, targets in TO.items() for to in targets])
def test_a_conversion_gives_a_record_of_the_other_format(source: str, to: str) -> None:
    made = convert(checked(source), source, to)
    assert made is not None
    assert checked(to, made) == made
    if to != "Prompt" and source != "Prompt":
        assert ("Because." in str(made)) or ("All are up." in str(made)), "the answer is not lost"


@pytest.mark.parametrize(("source", "to"), [(a, b) for a in FIELDS for b in FIELDS if a != b and b not in TO[a]])
def test_what_has_no_meaning_is_refused(source: str, to: str) -> None:
    with pytest.raises(ValueError, match="does not become"):
        convert(checked(source), source, to)
    assert target(source, to, None) is None


def test_a_bad_answer_becomes_nothing_else() -> None:
    bad = checked("UnpairedPreference", {**SAMPLES["UnpairedPreference"], "label": False})
    assert {to: convert(bad, "UnpairedPreference", to) for to in TO["UnpairedPreference"]} == dict.fromkeys(
        TO["UnpairedPreference"]
    )


def test_the_chain_of_a_problem() -> None:
    made = convert(checked("TRM"), "TRM", "PromptCompletion")
    assert made == {"prompt": "Analyse up.\n\n", "completion": "1. Look at the values.\n2. All are 1.\n\nAll are up."}
    first = checked("TRM", {**SAMPLES["TRM"], "initial_answer": "Some are down."})
    made = convert(first, "TRM", "PromptCompletion")
    assert made is not None
    assert made["prompt"].endswith("First answer: Some are down.\n\n")


def test_a_function_call_becomes_one() -> None:
    call = '{"name": "run_command", "arguments": {"command": "df -h"}}'
    record = checked("TRM", {**SAMPLES["TRM"], "solution": call, "metadata": {**METADATA, "type": "function_call"}})
    made = convert(record, "TRM", "Messages")
    assert made is not None
    assert made["messages"][-1]["tool_calls"][0]["function"]["arguments"] == {"command": "df -h"}
    assert made["tools"][0]["function"]["name"] == "run_command"
    assert checked("Messages", made) == made


def test_times_are_written_in_utc() -> None:
    assert checked("TRM")["metadata"]["timestamp"] == "2025-12-28T10:00:00Z"
    with_zone = {**METADATA, "timestamp": "2025-12-28T12:00:00+02:00"}
    assert checked("TRM", {**SAMPLES["TRM"], "metadata": with_zone})["metadata"]["timestamp"] == "2025-12-28T10:00:00Z"


def test_a_conversation_without_an_answer_has_no_completion() -> None:
    only_answer = {"messages": [{"role": "assistant", "content": "Hello."}]}
    assert convert(only_answer, "Messages", "PromptCompletion") is None


@pytest.mark.parametrize(
    ("record_format", "convert_to", "method", "wanted"),
    [
        ("TRM", None, "SFT", "PromptCompletion"),
        ("TRM", "Messages", "SFT", "Messages"),
        ("TRM", None, None, "TRM"),
        ("TunixSFT", None, "SFT", "Messages"),
        ("TRM", "Text", "Pretrain", "Text"),
        ("TRM", None, "Pretrain", None),
        ("Prompt", None, "SFT", None),
        ("Text", None, "SFT", "Text"),
        ("Text", "Messages", "SFT", None),
    ],
)
def test_what_a_method_is_given(
    record_format: str, convert_to: str | None, method: str | None, wanted: str | None
) -> None:
    assert target(record_format, convert_to, method) == wanted
    assert wanted is None or method is None or wanted in METHODS[method].learns.formats
