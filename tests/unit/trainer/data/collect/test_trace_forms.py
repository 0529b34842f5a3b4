"""A trace in each of the forms that tunix-rt writes, and back from the one that a dataset keeps."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest

from trainyard.trainer.data.collect.trace_forms import Trace, trace_of, written
from trainyard.trainer.data.formats import check
from trainyard.trainer.data.row import Fault, Row

BODY = {
    "trace_version": "1.0",
    "prompt": "Who wins?",
    "final_answer": "Ada",
    "steps": [{"i": 0, "type": "t", "content": "look"}, {"i": 1, "type": "t", "content": "compare"}],
    "meta": {"source": "ungar", "seed": 3},
}
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
TRACE = Trace.of("t1", MOMENT, BODY)
FACTS = {"created_at": "2026-01-02T01:04:05Z", "trace_version": "1.0", "source": "ungar", "seed": 3}


def test_as_the_store_writes_it() -> None:
    assert written(TRACE, "trace") == {
        "id": "t1", "prompts": "Who wins?", "trace_steps": ["look", "compare"], "final_answer": "Ada", "metadata": FACTS,
    }  # fmt: skip
    assert written(TRACE, "training_example") == {
        "prompt": "Who wins?\n\nPlease show your reasoning steps.",
        "response": "Reasoning:\n1. look\n2. compare\nAnswer: Ada",
        "metadata": {"source_trace_id": "t1", **FACTS},
    }
    assert written(TRACE, "tunix_sft") == {
        "id": "t1",
        "prompts": "<start_of_turn>user\nWho wins?<end_of_turn>\n"
        "<start_of_turn>model\nReasoning:\n1. look\n2. compare\nAnswer: Ada<end_of_turn>",
        "final_answer": "Ada",
        "metadata": {"format": "tunix_sft", **FACTS},
    }


def test_without_steps_there_is_no_word_about_reasoning() -> None:
    short = Trace.of("t1", MOMENT, BODY | {"steps": []})
    assert written(short, "training_example")["response"] == "Answer: Ada"
    assert written(short, "tunix_sft")["prompts"].endswith("<start_of_turn>model\nAnswer: Ada<end_of_turn>")


@pytest.mark.parametrize("form", ["TRM", "TrainingExample", "TunixSFT"])
def test_each_is_a_record_of_its_format(form: str) -> None:
    assert isinstance(check(Row("d", 1, written(TRACE, form)), form), dict)


@pytest.mark.parametrize("meta", [{}, {"source": 3, "timestamp": "x", "trace": "y"}])
def test_what_a_dataset_keeps_is_the_whole_trace(meta: dict[str, object]) -> None:
    trace = Trace.of("t1", MOMENT, BODY | {"meta": meta})
    kept = check(Row("d", 1, written(trace, "TRM")), "TRM")
    assert isinstance(kept, dict)
    assert trace_of(kept) == trace


@pytest.mark.parametrize(
    ("body", "form", "words"),
    [
        ({k: v for k, v in BODY.items() if k != "prompt"}, "TrainingExample", "field prompt: is null"),
        (BODY | {"final_answer": None}, "TrainingExample", "field response: is null"),
        (BODY | {"steps": [{"content": 3}]}, "TRM", r"field reasoning_steps\[0\]: expected a string"),
        ("text", "TRM", "field problem: is null"),
        ([], "TunixSFT", "field prompts: is null"),
    ],
)
def test_what_is_missing_is_a_fault_of_the_record(body: object, form: str, words: str) -> None:
    found = check(Row("d", 1, written(Trace.of("t1", MOMENT, body), form)), form)
    assert isinstance(found, Fault)
    assert re.search(words, str(found)), found
