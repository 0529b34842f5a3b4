"""Examples from traces, checked from the listed spans alone."""

from __future__ import annotations

import random
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.row import Row

MS = 1_000_000
LINE = re.compile(r"(\d+)\. (.+), (?:root|child of (\d+)), ([\d.]+) to ([\d.]+)(, error)?$")


def grow(seed: int) -> dict[str, Any]:
    """A random proper tree of spans."""
    dice = random.Random(seed)
    spans = [
        {
            "span_id": "s0",
            "parent_id": "",
            "name": "root",
            "service": "web",
            "start_ns": 10**18,
            "duration_ns": 1000 * MS,
        }
    ]
    for n in range(1, dice.randint(3, 14)):
        above = dice.choice(spans)
        room = above["duration_ns"] // MS
        if room < 12:
            continue
        begin = dice.randint(1, room // 2)
        length = dice.randint(2, room - begin - 1)
        spans.append(
            {
                "span_id": f"s{n}",
                "parent_id": above["span_id"],
                "name": f"call {n}",
                "service": dice.choice(["web", "db"]),
                "start_ns": above["start_ns"] + begin * MS,
                "duration_ns": length * MS,
            }
        )
    for span in spans:
        span["status"] = "error" if dice.random() < 0.15 else "ok"
        span["attributes"] = {}
    dice.shuffle(spans)
    return {"kind": "trace", "trace_id": f"t{seed}", "spans": spans}


def made(task: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    return [row.value for row in examples_of([Row("t", n, r) for n, r in enumerate(records)], [task])]


def read(problem: str) -> dict[int, dict[str, Any]]:
    found = {}
    for line in problem.splitlines():
        if match := LINE.match(line):
            number, name, parent, start, end, failed = match.groups()
            found[int(number)] = {
                "name": name,
                "parent": int(parent) if parent else None,
                "start": float(start),
                "end": float(end),
                "failed": bool(failed),
            }
    return found


@settings(max_examples=150)
@given(st.integers(0, 100_000))
def test_critical_path_from_its_end(seed: int) -> None:
    """Upwards from each leaf: exactly one of them has only last-ending spans above it."""
    for example in made("TraceCriticalPath", grow(seed)):
        spans = read(example["problem"])

        def is_last(number: int, spans: dict[int, Any] = spans) -> bool:
            brothers = [s["end"] for s in spans.values() if s["parent"] == spans[number]["parent"]]
            return spans[number]["parent"] is None or spans[number]["end"] == max(brothers)

        ends = []
        for leaf in spans.keys() - {s["parent"] for s in spans.values()}:
            path, current = [], leaf
            while current is not None:
                path.append(current)
                current = spans[current]["parent"]
            if all(map(is_last, path)):
                ends.append(path[::-1])
        assert len(ends) == 1
        assert example["solution"] == " > ".join(f"{n} {spans[n]['name']}" for n in ends[0])


@settings(max_examples=150)
@given(st.integers(0, 100_000))
def test_slowest_span(seed: int) -> None:
    for example in made("TraceSlowestSpan", grow(seed)):
        spans = read(example["problem"])
        took = {
            round(s["end"] - s["start"], 1): n
            for n, s in spans.items()
            if all(o["parent"] != n for o in spans.values())
        }
        longest = max(took)
        assert example["solution"] == f"{took[longest]} {spans[took[longest]]['name']}, {longest:.1f} ms"


@settings(max_examples=150)
@given(st.integers(0, 100_000))
def test_error_span(seed: int) -> None:
    for example in made("TraceErrorSpan", grow(seed)):
        spans = read(example["problem"])
        failed = {n for n, s in spans.items() if s["failed"]}
        covered = set()
        for n in failed:
            current = spans[n]["parent"]
            while current is not None:
                covered.add(current)
                current = spans[current]["parent"]
        origins = failed - covered
        if example["solution"] == "no span failed":
            assert not failed
        else:
            (origin,) = origins
            assert example["solution"].startswith(f"{origin} {spans[origin]['name']}; ")
            above = sorted(failed - {origin}, reverse=True)
            wanted = f"with it failed {', '.join(map(str, above))}" if above else "no span above it failed"
            assert example["solution"].endswith(wanted)


def test_what_is_no_proper_tree_makes_nothing() -> None:
    whole = grow(3)
    assert made("TraceErrorSpan", whole)
    lost = {**whole, "spans": [s for s in whole["spans"] if s["span_id"] != "s0"]}
    late = {**whole, "spans": [{**s, "duration_ns": 10**12} if s["parent_id"] == "s0" else s for s in whole["spans"]]}
    twice = {**whole, "spans": [{**s, "span_id": "s0"} for s in whole["spans"]]}
    bare = {**whole, "spans": [{"name": "x"}] * 4}
    assert not made("TraceErrorSpan", lost, late, twice, bare, {**whole, "spans": None})
