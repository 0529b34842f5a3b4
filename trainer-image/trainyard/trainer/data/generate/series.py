"""Examples from metrics: trend, level shift, saturation, gap, anomaly, comparison.

A span of a series is shown as 24 means of equal stretches (gaps: as single samples), rounded to four digits. All answers
are computed from these rounded numbers. Each judge below returns None where the numbers leave a doubt.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.data.generate.example import Example, clock, rfc3339

POINTS = 24
FEWEST = 12
GAP_SAMPLES = 16
_LIMITS = {"_ratio": 1.0, "_percent": 100.0, "_percentage": 100.0}


@dataclass(frozen=True)
class Shown:
    """What a problem shows of a series: rounded values at equal distances."""

    name: str
    start: float
    step: float
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        """The numbers as they stand in the problem."""
        return ", ".join(f"{value:.4g}" for value in self.values)

    def moment(self, index: int) -> str:
        """When a value's stretch begins."""
        return clock(self.start + index * self.step)


class SeriesMaker:
    """Series one after the other; each is also compared with the last one of the same query and span."""

    kind = "series"

    def __init__(self, tasks: frozenset[str]) -> None:
        self._tasks = tasks
        self._last: dict[str, Shown] = {}

    def add(self, record: dict[str, Any]) -> Iterator[Example]:
        """Examples from one series."""
        samples = clean(record.get("values"))
        if len(samples) < FEWEST:
            return
        query, name = str(record.get("query", "")), series_name(record)
        end = rfc3339(samples[-1][0])
        found: list[tuple[str, tuple[str, str, tuple[str, ...]] | None]] = []
        if "SeriesGap" in self._tasks and record.get("step"):
            found.append(("SeriesGap", gap(name, samples, float(record["step"]))))
        shown = show(name, samples)
        if shown is not None:
            judges = {
                "SeriesTrend": trend,
                "SeriesLevelShift": level_shift,
                "SeriesSaturation": saturation,
                "SeriesAnomaly": anomaly,
            }
            found += [(task, judge(shown)) for task, judge in judges.items() if task in self._tasks]
            if "SeriesComparison" in self._tasks:
                other = self._last.get(query)
                if other is not None and other.name != name and (other.start, other.step) == (shown.start, shown.step):
                    found.append(("SeriesComparison", comparison(other, shown)))
                if len(self._last) > 256:
                    self._last.clear()
                self._last[query] = shown
        for task, made in found:
            if made is not None:
                problem, solution, steps = made
                yield Example(task, problem, solution, steps, "prometheus", query, "metric_analysis", end)

    def end(self) -> Iterator[Example]:
        """Nothing is held back."""
        return iter(())


def clean(values: Any) -> list[tuple[float, float]]:
    """Samples in the order of time, without what is no number."""
    found = []
    for item in values if isinstance(values, list) else []:
        try:
            moment, value = float(item[0]), float(item[1])
        except (TypeError, ValueError, IndexError):
            continue
        if math.isfinite(value) and math.isfinite(moment):
            found.append((moment, value))
    found.sort()
    return [s for n, s in enumerate(found) if n == 0 or s[0] > found[n - 1][0]]


def series_name(record: dict[str, Any]) -> str:
    """`up{job="node"}`; the query where the series has no name of its own."""
    metric = {str(k): str(v) for k, v in (record.get("metric") or {}).items()}
    name = metric.pop("__name__", "") or str(record.get("query", ""))
    labels = ", ".join(f'{key}="{value}"' for key, value in sorted(metric.items()))
    return f"{name}{{{labels}}}" if labels else name


def show(name: str, samples: list[tuple[float, float]]) -> Shown | None:
    """Means of equal stretches; None if a stretch has no sample, because then there is no number to show."""
    count = min(POINTS, len(samples))
    start, end = samples[0][0], samples[-1][0]
    spacing = (end - start) / (len(samples) - 1)
    step = (end - start + spacing) / count
    stretches: list[list[float]] = [[] for _ in range(count)]
    for moment, value in samples:
        stretches[min(count - 1, int((moment - start) / step + 1e-9))].append(value)
    if not all(stretches):
        return None
    return Shown(name, start, step, tuple(round4(statistics.fmean(stretch)) for stretch in stretches))


def round4(value: float) -> float:
    """The number that is shown."""
    return float(f"{value:.4g}")


def _asked(shown: Shown, question: str) -> str:
    return (
        f"Metric {shown.name}, {len(shown.values)} means of {shown.step:.6g} s each, from {clock(shown.start)} UTC:\n"
        f"{shown.text}\n{question}"
    )


def trend(shown: Shown) -> tuple[str, str, tuple[str, ...]] | None:
    """Rising, falling or flat."""
    values = shown.values
    third = len(values) // 3
    first, last = statistics.fmean(values[:third]), statistics.fmean(values[-third:])
    spread, size = max(values) - min(values), max(abs(v) for v in values)
    pairs = len(values) * (len(values) - 1) // 2
    balance = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :]) / pairs
    if spread <= 0.02 * size:
        label = "flat"
    elif balance >= 0.7 and last - first >= max(0.4 * spread, 0.1 * size):
        label = "rising"
    elif balance <= -0.7 and first - last >= max(0.4 * spread, 0.1 * size):
        label = "falling"
    else:
        return None
    question = (
        "Is it rising, falling or flat? Flat means that all values lie within 2 % of the largest; compare the mean of the first "
        "third with that of the last third."
    )
    steps = (
        f"The mean of the first {third} values is {first:.4g}, that of the last {third} is {last:.4g}.",
        f"The smallest value is {min(values):.4g}, the largest {max(values):.4g}.",
        "All values lie within 2 % of the largest."
        if label == "flat"
        else f"The difference is {last - first:+.4g}, and {'later' if label == 'rising' else 'earlier'} values are nearly always "
        "the larger ones.",
    )
    change = "" if label == "flat" else f", from about {first:.4g} to about {last:.4g}"
    return _asked(shown, question), f"{label}{change}", steps


def level_shift(shown: Shown) -> tuple[str, str, tuple[str, ...]] | None:
    """One lasting jump: everything before lies on one side, everything after on the other, with a wide gap between."""
    values = shown.values
    found = []
    for k in range(4, len(values) - 3):
        before, after = values[:k], values[k:]
        jump = statistics.fmean(after) - statistics.fmean(before)
        gap_between = min(after) - max(before) if jump > 0 else min(before) - max(after)
        if gap_between > 0 and gap_between >= 0.6 * abs(jump):
            found.append((k, jump))
    size = max(abs(v) for v in values)
    if len(found) != 1 or abs(found[0][1]) < 0.1 * size:
        return None
    k, jump = found[0]
    low, high = statistics.fmean(values[:k]), statistics.fmean(values[k:])
    direction = "up" if jump > 0 else "down"
    question = (
        "The level changes once and stays changed. Which value (counted from 1) is the first at the new level, when does its "
        "stretch begin, and from which mean to which does the level go?"
    )
    steps = (
        f"The first {k} values lie between {min(values[:k]):.4g} and {max(values[:k]):.4g}.",
        f"The other {len(values) - k} lie between {min(values[k:]):.4g} and {max(values[k:]):.4g}.",
        f"Value {k + 1} is the first on the other side, and none goes back.",
    )
    solution = f"value {k + 1}, at {shown.moment(k)}: {direction} from {low:.4g} to {high:.4g}"
    return _asked(shown, question), solution, steps


def saturation(shown: Shown) -> tuple[str, str, tuple[str, ...]] | None:
    """Against a limit that the metric's own name tells: 1 for a ratio, 100 for a percentage."""
    name = shown.name.partition("{")[0]
    limit = next((limit for ending, limit in _LIMITS.items() if name.endswith(ending)), None)
    values = shown.values
    if limit is None or min(values) < 0 or max(values) > limit:
        return None
    full = 0.95 * limit
    question = (
        f"The limit is {limit:g}. It is saturated if at least the last three values are {full:g} or more. Is it saturated, since "
        "which value (counted from 1), or how much headroom is left above the largest value?"
    )
    tail = 0
    while tail < len(values) and values[-1 - tail] >= full:
        tail += 1
    if tail >= 3:
        since = len(values) - tail + 1
        solution = f"saturated since value {since}, at {shown.moment(since - 1)}"
        steps: tuple[str, ...] = (
            f"{full:g} is 95 % of the limit.",
            f"The last {tail} values are all {full:g} or more.",
        )
        if tail < len(values):
            steps += (f"Value {since - 1} is {values[since - 2]:.4g}, below it.",)
        return _asked(shown, question), solution, steps
    if max(values) >= 0.9 * limit:
        return None
    steps = (
        f"The largest value is {max(values):.4g}, below {full:g}.",
        f"Headroom is {limit:g} - {max(values):.4g} = {limit - max(values):.4g}.",
    )
    return _asked(shown, question), f"not saturated; headroom {limit - max(values):.4g}", steps


def gap(name: str, samples: list[tuple[float, float]], step: float) -> tuple[str, str, tuple[str, ...]] | None:
    """Samples that are missing between two that are there."""
    distances = [b[0] - a[0] for a, b in itertools.pairwise(samples)]
    wide = [n for n, d in enumerate(distances) if d >= 1.5 * step]
    if any(abs(d / step - round(d / step)) > 0.1 or round(d / step) < 1 for d in distances):
        return None
    if wide:
        longest = max(wide, key=lambda n: distances[n])
        first = max(0, min(longest - GAP_SAMPLES // 2 + 1, len(samples) - GAP_SAMPLES))
    else:
        first = 0
    part = samples[first : first + GAP_SAMPLES]
    missing = [
        (a[0], b[0], round((b[0] - a[0]) / step) - 1) for a, b in itertools.pairwise(part) if b[0] - a[0] >= 1.5 * step
    ]
    most = max((count for _, _, count in missing), default=0)
    if sum(count == most for _, _, count in missing) > 1:
        return None
    lines = "\n".join(f"{clock(moment)} {value:.4g}" for moment, value in part)
    problem = (
        f"Metric {name}, a sample every {step:g} s, times in UTC:\n{lines}\nAre samples missing between these? If so, where is "
        "the longest gap, and how many samples are missing in it?"
    )
    if not missing:
        return problem, "no sample is missing", (f"Every two neighbours are {step:g} s apart.",)
    start, end, count = max(missing, key=lambda m: m[2])
    steps = (
        f"Neighbours should be {step:g} s apart.",
        f"Between {clock(start)} and {clock(end)} lie {end - start:g} s.",
        f"{end - start:g} / {step:g} - 1 = {count}.",
    )
    more = f"; {len(missing)} gaps in all" if len(missing) > 1 else ""
    return problem, f"{count} missing after {clock(start)}, until {clock(end)}{more}", steps


def anomaly(shown: Shown) -> tuple[str, str, tuple[str, ...]] | None:
    """One value far from all others, or none."""
    values = shown.values
    middle = statistics.median(values)
    usual = statistics.median(abs(v - middle) for v in values)
    unit = max(usual, 0.01 * abs(middle))
    question = (
        "Does a single value stand out? It does if its distance from the median is more than ten times the median distance "
        "(at least 1 % of the median), and every other value is within five times. Which one, counted from 1?"
    )
    told = f"The median is {middle:.4g}, the median distance from it {usual:.4g}."
    if unit == 0:
        return None
    far = [n for n, v in enumerate(values) if abs(v - middle) > 12 * unit]
    within = [n for n, v in enumerate(values) if abs(v - middle) <= 4.5 * unit]
    if len(far) == 1 and len(within) == len(values) - 1:
        n = far[0]
        kind = "above" if values[n] > middle else "below"
        steps: tuple[str, ...] = (
            told,
            f"Value {n + 1} is {values[n]:.4g}, {abs(values[n] - middle):.4g} {kind} the median.",
            f"All others lie between {min(values[i] for i in within):.4g} and {max(values[i] for i in within):.4g}.",
        )
        return (
            _asked(shown, question),
            f"value {n + 1}, at {shown.moment(n)}: {values[n]:.4g}, far {kind} the rest",
            steps,
        )
    if all(abs(v - middle) <= 4.5 * unit for v in values):
        extreme = max(values, key=lambda v: abs(v - middle))
        steps = (told, f"The value farthest from it is {extreme:.4g}, {abs(extreme - middle):.4g} away: not ten times.")
        return _asked(shown, question), "no value stands out", steps
    return None


def comparison(one: Shown, other: Shown) -> tuple[str, str, tuple[str, ...]] | None:
    """Which of two is larger on average, and how far apart they are."""
    first, second = statistics.fmean(one.values), statistics.fmean(other.values)
    if min(first, second) <= 0 or max(first, second) < 1.2 * min(first, second):
        return None
    winner, label = (one, "A") if first > second else (other, "B")
    factor = max(first, second) / min(first, second)
    problem = (
        f"{len(one.values)} means of {one.step:.6g} s each, from {clock(one.start)} UTC.\n"
        f"A is {one.name}:\n{one.text}\nB is {other.name}:\n{other.text}\n"
        "Which of the two is larger on average, and by what factor?"
    )
    steps = (
        f"The mean of A is {first:.4g}.",
        f"The mean of B is {second:.4g}.",
        f"{max(first, second):.4g} / {min(first, second):.4g} = {factor:.3g}.",
    )
    return problem, f"{label} ({winner.name}), by a factor of {factor:.3g}", steps
