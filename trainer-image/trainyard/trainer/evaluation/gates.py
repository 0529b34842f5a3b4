"""From scores to verdicts: a pure function of what each record got, of the result and of the champion.

    Promote        surely good enough
    Reject         surely not
    Inconclusive   neither is sure with so few records

An interval that has what is asked for in its inside decides nothing. Without a champion yet, what would be a gain over it is
promoted or rejected as the spec says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainyard.api.run.evaluation import LOWER_IS_BETTER, Gate, canonical, is_of_task, own_name
from trainyard.trainer.evaluation.statistics import (
    UNKNOWN,
    Interval,
    Ratio,
    Values,
    difference,
    mean,
    median,
    share,
)

Verdict = Literal["Promote", "Reject", "Inconclusive"]
ORDER: tuple[Verdict, ...] = ("Promote", "Inconclusive", "Reject")
"""The best first."""
YES_OR_NO = frozenset({"exactMatch", "commandAccuracy"})
PERPLEXITIES = frozenset({"perplexity", "word_perplexity", "byte_perplexity"})
"""Exponentials of a mean; by own name."""


@dataclass(frozen=True)
class Column:
    """One metric over the records: amounts / weights. A weight of 0: the record says nothing about it."""

    amounts: Values
    weights: Values
    of_records: bool = True
    """Whether records have these amounts; else each has that of the whole, and nothing tells how sure it is."""

    def value(self, metric: str) -> float | None:
        """The metric; None where no record tells."""
        used = self.weights > 0
        if not used.any():
            return None
        return _value(metric, self.amounts[used], self.weights[used])


Columns = Mapping[str, Column]


@dataclass(frozen=True)
class NoChampion:
    """Nothing to compare with yet."""

    verdict: Verdict
    told: str


def judge(
    gate: Gate, result: Columns, champion: Columns | NoChampion | None, *, against: str = "the champion"
) -> dict[str, Any]:
    """The verdict on one gate, as it stands in the final record. `against` is what the champion is called."""
    metric = canonical(gate.metric)
    column = result.get(metric)
    if column is None:
        return _undecided(gate, f"{metric} is none of what the task measures: see status.evaluation.metrics")
    if gate.confidence and not column.of_records:
        return _undecided(
            gate, f"{metric} is of the task as a whole, so nothing tells how sure it is: give confidence: 0"
        )
    compared = champion[metric] if gate.minimum_gain is not None and isinstance(champion, Mapping) else None
    used = column.weights > 0
    if compared is not None:
        used &= compared.weights > 0
    n = int(used.sum())
    found: dict[str, Any] = {"metric": metric, "n": n, "confidence": gate.confidence}
    if not n:
        return found | {"verdict": "Inconclusive", "message": f"{metric}: no held-out record tells anything about it"}
    amounts, weights = column.amounts[used], column.weights[used]
    value = _value(metric, amounts, weights)
    found["value"] = value
    if not math.isfinite(value):
        return found | {"verdict": "Reject", "message": f"{metric} is {value}: the model has diverged"}
    judged: list[tuple[Verdict, str]] = []
    if gate.minimum is not None or gate.maximum is not None:
        interval = _interval(metric, amounts, weights, None, gate.confidence, value)
        found["interval"] = [interval.low, interval.high]
        judged += _against_limits(gate, interval)
    if isinstance(champion, NoChampion) and gate.minimum_gain is not None:
        judged.append((champion.verdict, f"no champion yet ({champion.told}): {champion.verdict}"))
    if compared is not None and gate.minimum_gain is not None:
        other = (compared.amounts[used], compared.weights[used])
        reference = _value(metric, *other)
        if not math.isfinite(reference):
            return found | {"verdict": "Inconclusive", "message": f"{metric} of {against} is {reference}"}
        sign = -1.0 if own_name(metric) in LOWER_IS_BETTER else 1.0
        gain = sign * (value - reference)
        bound = gate.minimum_gain
        between = _interval(metric, amounts, weights, other, gate.confidence, value - reference, bound=sign * bound)
        low, high = (between.low, between.high) if sign > 0 else (-between.high, -between.low)
        found |= {"reference": reference, "gain": gain, "interval": [low, high]}
        judged.append(_against_bound(gate, Interval(low, high), gain, f"{_shown(reference)} of {against}"))
    verdict = max((one for one, _ in judged), key=ORDER.index)
    reasons = "; ".join(text for one, text in judged if one == verdict)
    return found | {"verdict": verdict, "message": f"{metric} {_shown(value)} over {n} records: {reasons}"}


def _undecided(gate: Gate, message: str) -> dict[str, Any]:
    return {"metric": gate.metric, "n": 0, "confidence": gate.confidence, "verdict": "Inconclusive", "message": message}


def overall(judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict of all gates together, and why, in the words of those that decide."""
    if not judged:
        return {}
    verdict = max((one["verdict"] for one in judged), key=ORDER.index)
    message = "; ".join(str(one["message"]) for one in judged if one["verdict"] == verdict)
    return {"verdict": verdict, "gates": list(judged), "passed": verdict == "Promote", "message": message}


def _value(metric: str, amounts: Values, weights: Values) -> float:
    if metric == "latencyP50Seconds":
        return float(np.median(amounts))
    return Ratio(amounts, weights, own_name(metric) in PERPLEXITIES).value


def _interval(
    metric: str,
    amounts: Values,
    weights: Values,
    other: tuple[Values, Values] | None,
    confidence: float,
    value: float,
    *,
    bound: float = 0.0,
) -> Interval:
    """Of the metric, or of its difference to the other's on the same records. Without confidence, the value alone."""
    if confidence == 0:
        return Interval(value, value)
    if metric == "latencyP50Seconds":
        return median(amounts, other[0] if other else None, confidence)
    if metric in YES_OR_NO or (is_of_task(metric) and _all_yes_or_no(amounts, *(other[:1] if other else ()))):
        right = amounts > 0.5
        if other is None:
            return share(int(right.sum()), len(right), confidence)
        theirs = other[0] > 0.5
        return difference(int((right & ~theirs).sum()), int((theirs & ~right).sum()), len(right), confidence)
    exponent = own_name(metric) in PERPLEXITIES
    second = Ratio(*other, exponent) if other else None
    return mean(Ratio(amounts, weights, exponent), second, confidence, bound=bound)


def _all_yes_or_no(*columns: Values) -> bool:
    return all(bool(np.isin(amounts, (0.0, 1.0)).all()) for amounts in columns)


def _against_limits(gate: Gate, interval: Interval) -> list[tuple[Verdict, str]]:
    found: list[tuple[Verdict, str]] = []
    sure = _sure(gate, interval)
    if gate.minimum is not None:
        enough, too_bad = interval.low >= gate.minimum, interval.high < gate.minimum
        found.append(_limited(f"at least {_shown(gate.minimum)}", enough, too_bad, sure))
    if gate.maximum is not None:
        enough, too_bad = interval.high <= gate.maximum, interval.low > gate.maximum
        found.append(_limited(f"at most {_shown(gate.maximum)}", enough, too_bad, sure))
    return found


def _limited(asked: str, enough: bool, too_bad: bool, sure: str) -> tuple[Verdict, str]:
    if enough:
        return "Promote", f"{asked}{sure}"
    if too_bad:
        return "Reject", f"not {asked}{sure}"
    return "Inconclusive", f"not surely {asked}{sure}: give more held-out records, or confidence: 0 to go by the value"


def _against_bound(gate: Gate, interval: Interval, gain: float, reference: str) -> tuple[Verdict, str]:
    assert gate.minimum_gain is not None
    bound = gate.minimum_gain
    told = f"{gain:+.4g} over {reference}{_sure(gate, interval)}"
    asked = f"a gain of {_shown(bound)}" if bound else "a gain"
    if interval.low > bound or (gate.confidence == 0 and gain >= bound):
        return "Promote", f"{told}, {asked} is asked for"
    if interval.high < bound:
        return "Reject", f"{told}, less than {asked}"
    return "Inconclusive", f"{told}, which does not tell whether it is {asked}: more held-out records would"


def _sure(gate: Gate, interval: Interval) -> str:
    if gate.confidence == 0:
        return ""
    if interval == UNKNOWN:
        return " (one record says nothing about chance)"
    return f" ({gate.confidence:.4g} sure: {_shown(interval.low)} to {_shown(interval.high)})"


def _shown(value: float) -> str:
    return f"{value:.4g}"
