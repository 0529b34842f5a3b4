"""Examples from logs, checked from the text of the problem alone."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.generate.logs import is_error
from trainyard.trainer.data.row import Row

START = 1_766_900_000


def made(task: str, lines: list[tuple[float, str]], **labels: str) -> list[dict[str, Any]]:
    rows = [
        Row(
            "log",
            n,
            {"kind": "log", "labels": labels or {"app": "a"}, "timestamp_ns": int((START + t) * 1e9), "line": line},
        )
        for n, (t, line) in enumerate(lines)
    ]
    return [row.value for row in examples_of(rows, [task])]


def shown(problem: str) -> list[str]:
    return problem.splitlines()[1:-1]


kinds = st.sampled_from(
    ["level=info msg=ok id={}", "level=error msg=lost peer={}", "level=warn msg=slow took={}ms", "started {}"]
)
batches = st.lists(st.tuples(st.integers(0, 600), kinds, st.integers(0, 99)), min_size=16, max_size=16)


class TestTemplates:
    @settings(max_examples=80)
    @given(batches)
    def test_counted_again(self, entries: list[tuple[int, str, int]]) -> None:
        for example in made("LogTemplates", [(t, kind.format(n)) for t, kind, n in entries]):
            counts: Counter[str] = Counter()
            for line in shown(example["problem"]):
                counts[re.sub(r"\S*\d\S*", "<*>", line)] += 1
            told = {line.split(" ", 1)[1]: int(line.split(" ", 1)[0]) for line in example["solution"].splitlines()}
            assert told == counts
            assert list(told.values()) == sorted(told.values(), reverse=True)

    def test_lines_that_are_all_different_make_nothing(self) -> None:
        assert not made("LogTemplates", [(n, f"{'x' * (n + 1)} happened") for n in range(16)])


class TestBurst:
    @settings(max_examples=80)
    @given(batches)
    def test_counted_again(self, entries: list[tuple[int, str, int]]) -> None:
        for example in made("LogErrorBurst", [(t, kind.format(n)) for t, kind, n in entries]):
            minutes = Counter(line[:16] for line in shown(example["problem"]) if "level=error" in line)
            bursts = [m for m, count in minutes.items() if count >= 4]
            if example["solution"].startswith("yes"):
                assert len(bursts) == 1
                assert all(count <= 1 for m, count in minutes.items() if m not in bursts)
                assert example["solution"] == f"yes: {bursts[0]}, {minutes[bursts[0]]} errors"
            else:
                assert not bursts
                assert ("no line is an error" in example["solution"]) == (not minutes)

    def test_a_line_of_doubtful_level_makes_nothing(self) -> None:
        lines = [(n, "level=info msg=fine") for n in range(15)]
        assert not made("LogErrorBurst", [*lines, (15, "the upload failed, trying again")])
        assert made("LogErrorBurst", [*lines, (15, "level=error msg=lost")])


class TestFirstCause:
    @settings(max_examples=80)
    @given(batches)
    def test_found_again(self, entries: list[tuple[int, str, int]]) -> None:
        for example in made("LogFirstCause", [(t, kind.format(n)) for t, kind, n in entries]):
            errors = sorted(
                (datetime.fromisoformat(line[:19]), line) for line in shown(example["problem"]) if "level=error" in line
            )
            first, followed = example["solution"].splitlines()
            assert first == errors[0][1]
            assert errors[0][0] < errors[1][0], "a tie has no first"
            assert followed == f"{len(errors) - 1} followed"


def test_one_of_each_is_made() -> None:
    lines = [(0.0, "level=info msg=begin")] * 10 + [(60.0 + n, f"level=error msg=lost peer={n}") for n in range(6)]
    assert made("LogTemplates", lines)[0]["solution"] == "10 level=info msg=begin\n6 level=error msg=lost <*>"
    assert made("LogErrorBurst", lines)[0]["solution"].endswith(", 6 errors")
    assert made("LogFirstCause", lines)[0]["solution"].endswith("peer=0\n5 followed")


def test_levels() -> None:
    assert is_error('{"level":"error","msg":"x"}')
    assert is_error("E0102 15:04:05.000000 1 a.go:1] lost")
    assert is_error("2025-12-28 ERROR could not read")
    assert is_error("I0102 15:04:05.000000 1 a.go:1] no errors were found") is False
    assert is_error("level=info err=nil") is False
    assert is_error("connection failed") is None
    assert is_error("level=odd thing") is None
    assert is_error("started") is False


def test_streams_are_kept_apart() -> None:
    rows = []
    for n in range(32):
        labels = {"app": "a" if n % 2 else "b"}
        rows.append(
            Row(
                "log",
                n,
                {"kind": "log", "labels": labels, "timestamp_ns": (START + n) * 10**9, "line": f"{labels['app']} {n}"},
            )
        )
        rows.append(
            Row("log", n, {"kind": "log", "labels": labels, "timestamp_ns": (START + n) * 10**9, "line": "tick"})
        )
    found = [row.value for row in examples_of(rows, ["LogTemplates"])]
    assert found
    for example in found:
        app = re.search(r'app="(\w)"', example["problem"])[1]  # type: ignore[index]
        assert all(line == "tick" or line.startswith(app) for line in shown(example["problem"]))
