"""Examples from metrics: the answer is found again from the text of the problem alone, in another way.

Where the truth is known (a series that was made with a jump at a place), the answer must be that truth, or there must be no
example. The checks read the numbers out of the problem, as a pupil would.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.row import Row

START = 1_766_900_000


def series(values: list[float], *, step: int = 60, name: str = "up", query: str = "", **labels: str) -> dict[str, Any]:
    samples = [[START + n * step, value] for n, value in enumerate(values)]
    return {
        "kind": "series",
        "query": query or name,
        "metric": {"__name__": name, **labels},
        "values": samples,
        "step": step,
    }


def made(task: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [Row("test", n, record) for n, record in enumerate(records)]
    return [row.value for row in examples_of(rows, [task])]


def numbers(text: str) -> list[float]:
    """The line of numbers in a problem."""
    return [float(word) for word in text.splitlines()[1].split(", ")]


any_series = st.lists(
    st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda v: round(v, 3)), min_size=12, max_size=96
)


class TestTrend:
    @settings(max_examples=60)
    @given(
        st.sampled_from([-1, 0, 1]), st.floats(0.5, 5), st.floats(0, 0.08), st.integers(0, 10_000), st.integers(12, 120)
    )
    def test_the_truth_or_nothing(self, direction: int, slope: float, noise: float, seed: int, count: int) -> None:
        dice = random.Random(seed)
        base = 100.0
        values = [
            base + direction * slope * 20 * n / count + dice.gauss(0, noise if direction else noise * 5)
            for n in range(count)
        ]
        truth = {1: "rising", -1: "falling", 0: "flat"}[direction]
        for example in made("SeriesTrend", series(values)):
            assert example["solution"].split(",")[0] == truth

    @settings(max_examples=100)
    @given(any_series)
    def test_by_regression(self, values: list[float]) -> None:
        for example in made("SeriesTrend", series(values)):
            shown = numbers(example["problem"])
            label = example["solution"].split(",")[0]
            slope = np.polyfit(range(len(shown)), shown, 1)[0] * len(shown)
            size = max(map(abs, shown))
            if label == "flat":
                assert max(shown) - min(shown) <= 0.02 * size
            else:
                assert (slope > 0.05 * size) if label == "rising" else (slope < -0.05 * size)

    def test_a_clear_one_of_each_is_made(self) -> None:
        rise = [float(n) for n in range(48)]
        labels = [made("SeriesTrend", series(v))[0]["solution"].split(",")[0] for v in (rise, rise[::-1], [5.0] * 48)]
        assert labels == ["rising", "falling", "flat"]


class TestLevelShift:
    @settings(max_examples=100)
    @given(st.integers(5, 19), st.floats(20, 80), st.booleans(), st.integers(0, 10_000))
    def test_the_truth_or_nothing(self, place: int, jump: float, up: bool, seed: int) -> None:
        dice = random.Random(seed)
        high = 100 + (jump if up else -jump)
        values = [(100 if n < place else high) + dice.uniform(-3, 3) for n in range(24)]
        for example in made("SeriesLevelShift", series(values)):
            found = re.match(r"value (\d+), at .*: (up|down) from (\S+) to (\S+)", example["solution"])
            assert found is not None
            assert int(found[1]) == place + 1
            assert found[2] == ("up" if up else "down")
            assert math.isclose(float(found[4]) - float(found[3]), high - 100, abs_tol=7)

    @settings(max_examples=100)
    @given(any_series)
    def test_by_the_midpoint(self, values: list[float]) -> None:
        for example in made("SeriesLevelShift", series(values)):
            shown = numbers(example["problem"])
            place = int(re.match(r"value (\d+)", example["solution"])[1])  # type: ignore[index]
            middle = (np.mean(shown[: place - 1]) + np.mean(shown[place - 1 :])) / 2
            sides = [value > middle for value in shown]
            assert sum(a != b for a, b in itertools.pairwise(sides)) == 1
            assert sides.index(not sides[0]) == place - 1

    def test_a_spike_is_no_shift(self) -> None:
        assert not made("SeriesLevelShift", series([1.0] * 10 + [50.0] * 4 + [1.0] * 10))
        assert made("SeriesLevelShift", series([1.0] * 10 + [50.0] * 14))


class TestSaturation:
    @settings(max_examples=100)
    @given(st.lists(st.floats(0, 1).map(lambda v: round(v, 4)), min_size=24, max_size=24))
    def test_from_the_numbers(self, values: list[float]) -> None:
        for example in made("SeriesSaturation", series(values, name="disk_usage_ratio")):
            shown = np.array(numbers(example["problem"]))
            full = shown >= 0.95
            if example["solution"].startswith("saturated"):
                since = int(re.search(r"value (\d+)", example["solution"])[1])  # type: ignore[index]
                assert full[since - 1 :].all()
                assert len(shown) - since + 1 >= 3
                assert since == 1 or not full[since - 2]
            else:
                assert not full.any()
                assert float(example["solution"].split()[-1]) == float(f"{1 - shown.max():.4g}")

    def test_without_a_known_limit_nothing_is_said(self) -> None:
        assert not made("SeriesSaturation", series([0.99] * 24, name="queue_length"))
        assert made("SeriesSaturation", series([0.5] * 20 + [0.99] * 4, name="x_ratio"))[0]["solution"].startswith(
            "saturated"
        )


class TestGap:
    @settings(max_examples=100)
    @given(st.sets(st.integers(1, 58), max_size=12), st.sampled_from([15, 60, 300]))
    def test_the_missing_ones_are_counted_from_the_lines(self, missing: set[int], step: int) -> None:
        record = series([float(n) for n in range(60)], step=step)
        record["values"] = [s for n, s in enumerate(record["values"]) if n not in missing]
        for example in made("SeriesGap", record):
            shown = [int(float(line.split()[2])) for line in example["problem"].splitlines()[1:-1]]
            holes = {a: b - a - 1 for a, b in itertools.pairwise(shown) if b - a > 1}
            if example["solution"] == "no sample is missing":
                assert not holes
                assert not missing
            else:
                assert int(example["solution"].split()[0]) == max(holes.values())
                longest = max(len(run) for run in runs(missing))
                assert max(holes.values()) == longest, "the longest gap of the series is the one that is shown"

    def test_uneven_samples_make_nothing(self) -> None:
        record = series([1.0] * 30)
        record["values"] = [[t + (n % 3) * 11, v] for n, (t, v) in enumerate(record["values"])]
        assert not made("SeriesGap", record)


def runs(places: set[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for place in sorted(places):
        if found and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    return found


class TestAnomaly:
    @settings(max_examples=100)
    @given(st.integers(0, 23), st.floats(-100, 100), st.integers(0, 10_000))
    def test_the_truth_or_nothing(self, place: int, height: float, seed: int) -> None:
        dice = random.Random(seed)
        values = [50 + dice.uniform(-1, 1) for _ in range(24)]
        values[place] += height
        for example in made("SeriesAnomaly", series(values)):
            if example["solution"] == "no value stands out":
                assert abs(height) < 7
            else:
                assert int(example["solution"].split()[1].rstrip(",")) == place + 1
                assert abs(height) > 3

    @settings(max_examples=100)
    @given(any_series)
    def test_by_the_rule_of_the_question(self, values: list[float]) -> None:
        for example in made("SeriesAnomaly", series(values)):
            shown = np.array(numbers(example["problem"]))
            distance = np.abs(shown - np.median(shown))
            unit = max(np.median(distance), 0.01 * abs(np.median(shown)))
            if example["solution"] == "no value stands out":
                assert (distance <= 10 * unit).all()
            else:
                place = int(example["solution"].split()[1].rstrip(",")) - 1
                assert distance[place] > 10 * unit
                assert (np.delete(distance, place) <= 5 * unit).all()


class TestComparison:
    @settings(max_examples=100)
    @given(st.floats(0.1, 1000), st.floats(0.1, 1000), st.integers(0, 10_000))
    def test_the_truth_or_nothing(self, first: float, second: float, seed: int) -> None:
        dice = random.Random(seed)
        records = [
            series([level * dice.uniform(0.97, 1.03) for _ in range(48)], pod=pod)
            for pod, level in (("a", first), ("b", second))
        ]
        for example in made("SeriesComparison", *records):
            label, factor = example["solution"][0], float(example["solution"].split()[-1])
            assert label == ("A" if first > second else "B")
            assert math.isclose(factor, max(first, second) / min(first, second), rel_tol=0.07)
            lines = example["problem"].splitlines()
            means = [np.mean([float(w) for w in lines[n].split(", ")]) for n in (2, 4)]
            assert math.isclose(factor, max(means) / min(means), rel_tol=0.006)

    def test_other_times_or_other_queries_are_not_compared(self) -> None:
        late = series([9.0] * 24, pod="b")
        late["values"] = [[t + 86400, v] for t, v in late["values"]]
        assert not made("SeriesComparison", series([1.0] * 24, pod="a"), late)
        assert not made("SeriesComparison", series([1.0] * 24, pod="a"), series([9.0] * 24, pod="b", query="other"))
        assert made("SeriesComparison", series([1.0] * 24, pod="a"), series([9.0] * 24, pod="b"))


def test_what_is_no_number_is_left_out() -> None:
    record = series([1.0] * 96)
    record["values"][3][1] = "NaN"
    record["values"][4] = None
    assert made("SeriesTrend", record)[0]["solution"] == "flat"
    holes = {**record, "values": record["values"][:20] + record["values"][40:]}
    assert not made("SeriesTrend", holes), "a stretch without a sample has no mean"
    assert not made("SeriesTrend", {**record, "values": None})
    assert not made("SeriesTrend", series([1.0] * 5))
