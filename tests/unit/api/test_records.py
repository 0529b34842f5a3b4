"""What may stand in a record: the door of everything that pods tell."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainyard.api.bounds import ENTRIES, FACT_LENGTH, LARGEST, LINE_LENGTH, LINES
from trainyard.api.progress import FinalRecord, ProgressRecord, merged_metrics

PROGRESS: dict[str, Any] = {
    "runUid": "u-1",
    "step": "train-warm-up",
    "attempt": 1,
    "sequence": 1,
    "time": "2026-01-01T12:00:00.5+02:00",
}
FINAL: dict[str, Any] = {"step": "train", "outcome": "Succeeded"}
CHECKPOINT = {"step": 5, "path": "alpha-0c5b7a52/checkpoints/step-00000005", "time": "2026-01-01T00:00:00Z", "bytes": 7}
TOO_MANY = {f"m{n}": 1.0 for n in range(ENTRIES + 1)}

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"time": "yesterday"}, "time"),
    ({"time": "0001-01-01T00:00:00Z"}, "time"),
    ({"time": "2026-02-30T00:00:00Z"}, "time"),
    ({"time": "2026-01-01T00:00:00"}, "time"),
    ({"time": "2026-01-01T00:00:00Z\n"}, "time"),
    ({"runUid": "a/b"}, "runUid"),
    ({"step": "train-" + "x" * 58}, "step"),
    ({"step": "train-a\nb"}, "step"),
    ({"attempt": 10**40}, "attempt"),
    ({"sequence": LARGEST + 1}, "sequence"),
    ({"stepNumber": 10**40}, "stepNumber"),
    ({"totalSteps": -1}, "totalSteps"),
    ({"firstStep": LARGEST + 1}, "firstStep"),
    ({"epoch": 1e300}, "epoch"),
    ({"percentage": 700}, "percentage"),
    ({"estimatedRemainingSeconds": 1e300}, "estimatedRemainingSeconds"),
    ({"phase": "a\x1b[31m"}, "phase"),
    ({"metrics": {"m" * 254: 1.0}}, "metrics"),
    ({"metrics": {"loss\n": 1.0}}, "metrics"),
    ({"metrics": TOO_MANY}, "metrics"),
    ({"checkpoint": CHECKPOINT | {"path": "/etc"}}, "path"),
    ({"checkpoint": CHECKPOINT | {"path": "a/../../b"}}, "path"),
    ({"checkpoint": CHECKPOINT | {"path": "a\nb"}}, "path"),
    ({"checkpoint": CHECKPOINT | {"path": "a" * 1025}}, "path"),
    ({"checkpoint": CHECKPOINT | {"time": "soon"}}, "time"),
    ({"checkpoint": CHECKPOINT | {"step": LARGEST + 1}}, "step"),
    ({"effective": {"nested": {"a": 1}}}, "effective"),
    ({"effective": {"list": [1]}}, "effective"),
    ({"effective": {"large": 10**40}}, "effective"),
    ({"effective": {"k" * 254: 1}}, "effective"),
    ({"effective": TOO_MANY}, "effective"),
    ({"mlflowRunId": "../x"}, "mlflowRunId"),
    ({"mlflowRunId": "a" * 65}, "mlflowRunId"),
]

FACTS = {field.alias for field in FinalRecord.model_fields.values()} - {"step"}
OF_A_FINAL_RECORD = [change for change, _ in FAULTS if change.keys() <= FACTS]


@pytest.mark.parametrize(("change", "field"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_progress_record_out_of_its_bounds_is_refused_by_the_name_of_the_field(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        ProgressRecord.model_validate(PROGRESS | change)
    assert [fault for fault in refused.value.errors() if field in fault["loc"]]


def test_texts_for_people_are_cleaned_and_cut() -> None:
    record = ProgressRecord.model_validate(
        PROGRESS | {"message": "two\nlines\x1b[2J", "effective": {"device": "a\x07b", "long": "x" * 9999}}
    )
    assert record.message == "two lines"
    assert record.effective is not None
    assert record.effective["device"] == "a b"
    assert len(record.effective["long"]) == FACT_LENGTH


def test_numbers_that_json_cannot_hold_are_absent_and_a_loss_of_any_size_is_one() -> None:
    record = ProgressRecord.model_validate(
        PROGRESS | {"metrics": {"loss": 3.4e38, "norm": float("inf"), "rate": float("nan")}, "unknown": 1}
    )
    assert record.metrics == {"loss": 3.4e38, "norm": None, "rate": None}


def test_metrics_of_an_attempt_stay_as_few_as_those_of_a_record() -> None:
    merged: dict[str, float | None] = {}
    for number in range(300):
        merged = merged_metrics(merged, {"loss": float(number), f"m{number}": 0.0})
    assert len(merged) == ENTRIES
    assert merged["loss"] == 299.0
    assert {"m299", "m298", f"m{300 - ENTRIES + 1}"} <= merged.keys()
    assert merged_metrics({"a": 1.0}, {"b": 2.0}) == {"a": 1.0, "b": 2.0}
    full = {f"m{n}": 0.0 for n in range(ENTRIES)}
    assert merged_metrics({"a": 1.0}, full) == full


@pytest.mark.parametrize("change", OF_A_FINAL_RECORD, ids=lambda value: str(value)[:40])
def test_a_final_record_loses_what_is_wrong_in_it_and_nothing_else(change: dict[str, Any]) -> None:
    good = {"evaluation": {"metrics": {"loss": 2.5}}, "hint": "why", "lastLogLines": ["end"]}
    record = FinalRecord.lenient(json.dumps(FINAL | good | change))
    assert record is not None
    assert (record.step, record.outcome, record.hint, record.last_log_lines) == ("train", "Succeeded", "why", ["end"])
    assert record.evaluation is not None
    assert record.evaluation.metrics == {"loss": 2.5}
    FinalRecord.model_validate_json(record.to_json())


def test_of_a_mapping_only_the_entries_that_are_wrong_go() -> None:
    told = {
        "metrics": {"loss": 1.5, "n" * 254: 1, "word": "x", "\ud83d": 1} | {"rate": 0.1},
        "effective": {"device": "cpu", "nested": {}, "threads": 4},
        "evaluation": {"metrics": {"exact": 0.5, "bad": []}, "passed": "maybe", "message": "a\nb"},
        "dataset": {
            "digest": "d",
            "records": 10**40,
            "splits": {"train": 5, "eval": -1},
            "sources": [{"name": "a"}, {"name": "b", "records": 2}, {"records": 1}, {"name": "c", "records": 3}],
        },
        "timings": {"load": 1.5, "never": None},
    }
    without_surrogate = FinalRecord.lenient(FINAL | told | {"metrics": {"loss": 1.5, "n" * 254: 1, "word": "x"}})
    assert without_surrogate is not None
    assert without_surrogate.metrics == {"loss": 1.5}
    record = FinalRecord.lenient(json.dumps(FINAL | told))
    assert record is not None
    assert record.metrics == {}, "a name that is no text cannot be told from the others"
    assert record.effective == {"device": "cpu", "threads": 4}
    assert record.evaluation is not None
    assert (record.evaluation.metrics, record.evaluation.passed, record.evaluation.message) == (
        {"exact": 0.5},
        None,
        "a b",
    )
    assert record.dataset is not None
    assert (record.dataset.digest, record.dataset.records, record.dataset.splits) == ("d", None, {"train": 5})
    assert [source.name for source in record.dataset.sources] == ["b", "c"]
    assert record.timings == {"load": 1.5}


def test_what_is_too_long_keeps_its_beginning_and_of_a_log_the_end() -> None:
    record = FinalRecord.lenient(
        FINAL | {"metrics": TOO_MANY, "lastLogLines": [f"\x1b[1m{n} " + "x" * 999 for n in range(99)]}
    )
    assert record is not None
    assert list(record.metrics) == list(TOO_MANY)[:ENTRIES]
    assert len(record.last_log_lines) == LINES
    assert record.last_log_lines[-1].startswith("98 x")
    assert {len(line) for line in record.last_log_lines} == {LINE_LENGTH}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"step": "train"}',
        '{"step": "train", "outcome": "Fine"}',
        '{"a": ' * 3000,
        "9" * 5000,
    ],
)
def test_what_is_no_record_is_none(text: str) -> None:
    assert FinalRecord.lenient(text) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([f.alias or n for n, f in FinalRecord.model_fields.items()]), JSON))
def test_no_fact_hides_the_outcome(facts: dict[str, Any]) -> None:
    record = FinalRecord.lenient(json.dumps(facts | FINAL))
    assert record is not None
    assert (record.step, record.outcome) == ("train", "Succeeded")
    assert FinalRecord.lenient(record.to_json()) == record, "what is left is clean"
