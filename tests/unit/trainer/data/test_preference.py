"""Preferences and prompts, in every form they may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.data.formats import check
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.store import Sequences, write_split
from trainyard.trainer.data.tokenize import Example

ASK = {"role": "user", "content": "why?"}
YES, NO = {"role": "assistant", "content": "so."}, {"role": "assistant", "content": "no."}


def checked(value: dict[str, Any], record_format: str = "Preference") -> Any:
    return check(Row("file.jsonl", 7, value), record_format)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c", "id": 3}, ("a", "b", "c")),
        ({"prompt": [ASK], "chosen": [YES], "rejected": [NO]}, ([ASK], [YES], [NO])),
        ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, ([ASK], [YES], [NO])),
        ({"chosen": [ASK, YES, ASK, YES], "rejected": [ASK, YES, ASK, NO]}, ([ASK, YES, ASK], [YES], [NO])),
        ({"chosen": "the sky is blue", "rejected": "the sky is blank"}, ("the sky is", " blue", " blank")),
        ({"chosen": "it is", "rejected": "it is not"}, ("it", " is", " is not")),
        ({"chosen": "a b", "rejected": "a\tb"}, ("a", " b", "\tb")),
        ({"chosen": "yes", "rejected": "no"}, ("", "yes", "no")),
        ({"prompt": '[{"role": "user", "content": "why?"}]', "chosen": [YES], "rejected": [NO]}, ([ASK], [YES], [NO])),
    ],
)
def test_forms(given: dict[str, Any], normal: tuple[Any, Any, Any]) -> None:
    assert checked(given) == dict(zip(("prompt", "chosen", "rejected"), normal, strict=True))


@pytest.mark.parametrize(("label", "normal"), [(True, True), (0, False), ("True", True), ("false", False), ("1", True)])
def test_labels_as_files_have_them(label: Any, normal: bool) -> None:
    assert checked({"prompt": "a", "completion": "b", "label": label}, "UnpairedPreference")["label"] is normal


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": "a", "completion": "b"}, "field label: is missing"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "field label: expected true"),
        ({"prompt": "a", "completion": "b", "label": 0.5}, "field label: expected true"),
        ({"prompt": "a", "completion": "", "label": True}, "field completion: is empty"),
        ({"prompt": "a", "completion": [YES], "label": True}, "must be both text or both lists"),
        ({"prompt": [ASK], "completion": [ASK, YES], "label": True}, "begins with role user"),
        (
            {"prompt": [ASK], "completion": [{"role": "asistant", "content": "x"}], "label": True},
            "did you mean assistant",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "set format: Preference"),
    ],
)
def test_faults_of_a_judged_answer(given: dict[str, Any], told: str) -> None:
    found = checked(given, "UnpairedPreference")
    assert isinstance(found, Fault)
    assert told in str(found)


def test_two_equal_answers_prefer_nothing() -> None:
    assert checked({"prompt": "a", "chosen": "b", "rejected": "b"}) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": "a", "chosen": "b"}, "field rejected: is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "field rejected: is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "field rejected: expected a string or a list"),
        ({"prompt": "a", "chosen": [YES], "rejected": [NO]}, "must be all text or all lists"),
        (
            {"prompt": [ASK], "chosen": [YES], "rejected": [{"role": "asistant", "content": "x"}]},
            "did you mean assistant",
        ),
        ({"prompt": [ASK], "chosen": [ASK], "rejected": [NO]}, "field chosen: the answer begins with role user"),
        ({"chosen": [YES], "rejected": [NO]}, "do not begin with a common prompt"),
        ({"prompt": "a", "completion": "b"}, "set format: PromptCompletion"),
    ],
)
def test_faults(given: dict[str, Any], told: str) -> None:
    fault = checked(given)
    assert isinstance(fault, Fault)
    assert str(fault).startswith("file.jsonl:7: ")
    assert told in str(fault)


def test_prompts() -> None:
    assert checked({"prompt": "a", "answer": 42, "level": 3}, "Prompt") == {"prompt": "a", "answer": "42"}
    assert checked({"prompt": [ASK]}, "Prompt") == {"prompt": [ASK]}
    assert "field answer: expected a string or a number" in str(checked({"prompt": "a", "answer": ["b"]}, "Prompt"))
    assert "field prompt: expected" in str(checked({"prompt": 3}, "Prompt"))


def test_pairs_stay_together_when_repeated(tmp_path: Path) -> None:
    examples = [(Example([n, n + 1], [False, True]), repeat) for n, repeat in ((10, 2), (20, 2), (30, 1), (40, 1))]
    count = write_split(tmp_path / "s", examples, vocab_size=100, max_length=8, packing=False, pairs=True)
    assert count == 3
    read = Sequences.open(tmp_path / "s", vocab_size=100)
    firsts = [[int(part["input_ids"][0]) for part in read.parts(n)] for n in range(3)]
    assert firsts == [[10, 20], [10, 20], [30, 40]]


def test_answers_are_kept_as_text(tmp_path: Path) -> None:
    given = ["ja", "", "größer 🚂"]
    examples = [(Example([1, 2, 3], [False] * 3, answer), 1) for answer in given]
    write_split(tmp_path / "s", examples, vocab_size=100, max_length=8, packing=False)
    read = Sequences.open(tmp_path / "s", vocab_size=100)
    assert [read.answer(n) for n in range(3)] == given
