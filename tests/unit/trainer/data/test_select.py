"""Columns, filters, limits, duplicates and groups, over whole builds on small data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.run_contexts import context_of
from trainyard.api.run.selection import Filter
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import build_records
from trainyard.trainer.data.duplicates import signature
from trainyard.trainer.data.select import passes, seconds
from trainyard.trainer.errors import UserError


def context(tmp_path: Path, *datasets: dict[str, Any], mode: str = "Dataset", **spec: Any) -> RunContext:
    numbered = [{"name": f"d{n}", **d} for n, d in enumerate(datasets)]
    return context_of(tmp_path, {"mode": mode, "datasets": numbered, **spec})


def built(tmp_path: Path, *datasets: dict[str, Any], **spec: Any) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Records by split, and the facts of the manifest."""
    out = tmp_path / "out"
    (out / "staging").mkdir(parents=True)
    facts = build_records(context(tmp_path, *datasets, **spec), out, out / "staging", inspect=True)
    splits = {
        split: [json.loads(line) for file in sorted((out / split).iterdir()) for line in file.read_text().splitlines()]
        for split in ("train", "eval", "test")
    }
    return splits, facts


def inline(*records: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inline": {"records": list(records)}, **more}


def test_columns_and_filters(tmp_path: Path) -> None:
    records = [
        {"in": {"question": f"q{n}"}, "out": f"a{n}", "score": n, "tags": ["even"] if n % 2 == 0 else []}
        for n in range(10)
    ]
    filters = [
        {"field": "score", "operator": "GreaterThan", "values": ["2"]},
        {"field": "tags", "operator": "Contains", "values": ["even"]},
    ]
    splits, facts = built(
        tmp_path,
        inline(
            *records, format="PromptCompletion", columns={"prompt": "in.question", "completion": "out"}, filters=filters
        ),
    )
    assert splits["train"] == [{"prompt": f"q{n}", "completion": f"a{n}"} for n in (4, 6, 8)]
    assert facts["statistics"]["filtered"] == 7


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset d0:1: columns.text: the record has no field body; it has words"):
        built(tmp_path, inline({"words": "a"}, columns={"text": "body"}))


@pytest.mark.parametrize(
    ("operator", "values", "wanted"),
    [
        ("In", ["10"], True),
        ("NotIn", ["10"], False),
        ("GreaterThan", ["9"], True),
        ("LessThan", ["9"], False),
        ("Contains", ["1"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_operators(operator: str, values: list[str], wanted: bool) -> None:
    condition = Filter.model_validate({"field": "a.b", "operator": operator, "values": values})
    assert passes({"a": {"b": 10}}, [condition]) is wanted
    absent = operator in ("NotIn", "DoesNotExist")
    assert passes({"a": 1}, [condition]) is absent
    assert passes({"a.b": 10}, [condition]) is wanted, "a name with a dot of its own"


def test_first_and_latest(tmp_path: Path) -> None:
    records = [{"text": f"t{n}", "created_at": f"2025-01-{28 - n:02d}T00:00:00Z"} for n in range(20)]
    (tmp_path / "a").mkdir()
    splits, _ = built(tmp_path / "a", inline(*records, limit=3, selectionStrategy="First"))
    assert [r["text"] for r in splits["train"]] == ["t0", "t1", "t2"]
    (tmp_path / "b").mkdir()
    splits, _ = built(tmp_path / "b", inline(*records[::-1], limit=3, selectionStrategy="Latest"))
    assert {r["text"] for r in splits["train"]} == {"t0", "t1", "t2"}
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="has no field at: set timeField"):
        built(tmp_path / "c", inline(*records, limit=3, selectionStrategy="Latest", timeField="at"))


def test_times_of_every_kind_are_the_same_moment() -> None:
    moment = 1_735_689_600.0
    for value in (
        moment,
        moment * 1e3,
        moment * 1e6,
        moment * 1e9,
        "2025-01-01T00:00:00Z",
        "2025-01-01",
        str(int(moment)),
    ):
        assert seconds(value) == moment
    assert seconds("soon") is None
    assert seconds(True) is None


def test_equal_records_are_dropped_and_the_held_out_one_stays(tmp_path: Path) -> None:
    train = inline({"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "held"}, deduplicate="Exact")
    splits, facts = built(tmp_path, train, inline({"text": "held"}, role="Test"))
    assert [r["text"] for r in splits["train"]] == ["a", "b"]
    assert [r["text"] for r in splits["test"]] == ["held"]
    assert facts["statistics"]["duplicates"] == 2
    assert facts["statistics"]["leaked"] == 0


def sentence(dice: random.Random, words: int = 60) -> list[str]:
    return [
        dice.choice(
            [
                "river",
                "stone",
                "cloud",
                "tiger",
                "apple",
                "night",
                "train",
                "window",
                "paper",
                "green",
                "seven",
                "music",
            ]
        )
        + str(dice.randint(0, 99))
        for _ in range(words)
    ]


def test_nearly_equal_records_never_stand_on_both_sides(tmp_path: Path) -> None:
    dice = random.Random(5)
    texts = []
    for n in range(60):
        words = sentence(dice)
        texts.append({"text": " ".join(words), "group": n})
        texts.append({"text": " ".join([*words[:-1], "changed"]), "group": n})
    dice.shuffle(texts)
    (tmp_path / "off").mkdir()
    _, facts = built(tmp_path / "off", inline(*texts, split={"eval": 0.3}))
    assert facts["statistics"]["nearlyLeaked"] > 5
    (tmp_path / "on").mkdir()
    splits, facts = built(tmp_path / "on", inline(*texts, split={"eval": 0.3}, deduplicate="Near"))
    assert facts["statistics"]["duplicates"] == 60
    assert facts["statistics"]["nearlyLeaked"] == 0
    assert len(splits["train"]) + len(splits["eval"]) == 60
    (tmp_path / "grouped").mkdir()
    _, facts = built(tmp_path / "grouped", inline(*texts, split={"eval": 0.3, "groupBy": ["group"]}))
    assert facts["statistics"]["nearlyLeaked"] == 0


def test_signatures_estimate_the_overlap() -> None:
    dice = random.Random(1)
    for changed in (0, 2, 8, 30):
        words = sentence(dice, 300)
        other = [f"new{n}" if n < changed else word for n, word in enumerate(words)]
        one, two = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (words, other))
        truth = len(one & two) / len(one | two)
        assert abs(float((signature(" ".join(words)) == signature(" ".join(other))).mean()) - truth) < 0.2


def test_groups_stay_together(tmp_path: Path) -> None:
    records = [{"text": f"text {n}", "repository": f"r{n % 12}"} for n in range(240)]
    splits, _ = built(tmp_path, inline(*records, split={"eval": 0.3, "test": 0.2, "groupBy": ["repository"]}))
    groups = [{int(r["text"].split()[1]) % 12 for r in splits[s]} for s in ("train", "eval", "test")]
    assert all(groups)
    assert sum(map(len, groups)) == 12, "no group on two sides"


def test_generated_examples_of_each_task_are_limited(tmp_path: Path) -> None:
    series = [
        {
            "kind": "series",
            "query": "up",
            "metric": {"__name__": "up", "pod": str(n)},
            "step": 60,
            "values": [[1.7e9 + 60 * t, float(t * (n + 1))] for t in range(48)],
        }
        for n in range(12)
    ]
    splits, facts = built(
        tmp_path,
        inline(
            *series,
            generate={"tasks": ["SeriesTrend", "SeriesGap"], "maxPerTask": 5},
            split={"eval": 0.2, "groupBy": ["metadata.task"]},
        ),
    )
    found = [r["metadata"]["task"] for split in splits.values() for r in split]
    assert sorted(found) == ["SeriesGap"] * 5 + ["SeriesTrend"] * 5
    assert facts["datasets"][0]["format"] == "TRM"
    assert {len({r["metadata"]["task"] for r in split}) for split in splits.values() if split} == {1}


def test_a_collected_record_is_no_training_record_by_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a collected series is no record of format Text: set generate"):
        built(tmp_path, inline({"kind": "series", "values": []}))


def test_a_conversion_without_meaning(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"spec.datasets\[d0\].convertTo Messages: records of format Prompt do not become"
    ):
        built(tmp_path, inline({"prompt": "a"}, format="Prompt", convertTo="Messages"))
