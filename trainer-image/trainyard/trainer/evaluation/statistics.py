"""How sure a difference is that was measured on so many records. Pure numpy; a seed of its own, so that a verdict is repeatable.

* A mean (loss, perplexity, share of right tokens) is a ratio of sums over records. Its interval is a bootstrap-t: records are
  drawn again, and the spread of each draw is taken into account, which keeps its promise for few and skewed records where
  plain percentiles do not. Of a difference, the interval also holds the bound that is asked for unless a sign test rules that
  out: were the two models equal but for the bound, whose record is whose would be a coin's choice, and so many coins give
  so large a gain seldom enough.
* Of yes and no about the same records only those count on which the two models differ. The interval of the difference is that
  of the score test (Tango), which does not collapse where they never differ, and it holds 0 unless McNemar's exact test rules
  that out: one interval, and the verdict that it gives is the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 10_000
SEED = 20_251
MOST_UNITS = 1_000
"""Records are drawn one by one up to here; of more, groups that were put together by chance. The spread is the same."""
BLOCK = 4_000_000
"""Drawn records that are held at a time."""
MARGIN = 0.7
"""Of the share of errors that the confidence leaves, that the sign test uses up: so a thousand comparisons of equals stay below
it in spite of chance."""
LARGEST_EXPONENT = 300.0
"""A loss beyond it has a perplexity that no float holds when it is squared."""
FEWEST = 2
"""Records below which nothing is said about the spread of a mean."""


@dataclass(frozen=True)
class Interval:
    """From and to; infinite where nothing can be said."""

    low: float
    high: float


UNKNOWN = Interval(-math.inf, math.inf)


def mcnemar(wins: int, losses: int) -> float:
    """Probability of a split at least as uneven, if each of the records on which two models differ fell by a coin."""
    differing = wins + losses
    if not differing:
        return 1.0
    tail = sum(math.comb(differing, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**differing)) if differing < 1000 else _large(wins, losses)


def _large(wins: int, losses: int) -> float:
    """The same by the normal distribution, with correction for continuity: beyond what floats hold of the exact one."""
    distance = max(0.0, abs(wins - losses) - 1) / math.sqrt(wins + losses)
    return min(1.0, 2 * NormalDist().cdf(-distance))


def share(right: int, n: int, confidence: float) -> Interval:
    """Of a share of right answers: exact (Clopper-Pearson)."""
    if not n:
        return UNKNOWN
    rest = (1 - confidence) / 2
    low = 0.0 if not right else _crossing(lambda p: _at_least(right, n, p) - rest, 0.0, right / n)
    high = 1.0 if right == n else _crossing(lambda p: rest - _at_least(n - right, n, 1 - p), right / n, 1.0)
    return Interval(low, high)


def difference(wins: int, losses: int, n: int, confidence: float) -> Interval:
    """Of the difference of two shares over the same records: `wins` are right for the first model alone."""
    if not n:
        return UNKNOWN
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (wins - losses) / n

    def score(delta: float) -> float:
        b = -wins - losses + (2 * n - wins + losses) * delta
        c = -losses * delta * (1 - delta)
        rare = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        spread = n * (2 * rare + delta * (1 - delta))
        away = wins - losses - n * delta
        return away / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, away) if away else 0.0

    low = -1.0 if score(-1.0) < z else _crossing(lambda d: z - score(d), -1.0, middle)
    high = 1.0 if score(1.0) > -z else _crossing(lambda d: -z - score(d), middle, 1.0)
    if mcnemar(wins, losses) > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(low, high)


@dataclass(frozen=True)
class Ratio:
    """Sums over records of which the metric is made: amounts / weights, with `exponent` e to the power of that."""

    amounts: Values
    weights: Values
    exponent: bool = False

    @property
    def value(self) -> float:
        """The metric."""
        ratio = float(self.amounts.sum() / max(self.weights.sum(), 1e-300))
        if not self.exponent:
            return ratio
        return math.exp(ratio) if ratio < LARGEST_EXPONENT else math.inf

    def units(self, order: NDArray[np.int64] | None) -> Ratio:
        """Records, or sums over groups of them."""
        if order is None:
            return self
        edges = np.linspace(0, len(order), MOST_UNITS + 1).astype(np.int64)[:-1]
        amounts, weights = (np.add.reduceat(values[order], edges) for values in (self.amounts, self.weights))
        return Ratio(amounts, weights, self.exponent)

    def drawn(self, draws: NDArray[np.int64]) -> tuple[Values, Values]:
        """Of each row of draws: the metric, and what each record adds to its distance from the truth."""
        amounts, weights = self.amounts[draws], self.weights[draws]
        ratio = amounts.sum(-1) / np.maximum(weights.sum(-1), 1e-300)
        value = np.exp(np.minimum(ratio, LARGEST_EXPONENT)) if self.exponent else ratio
        slope = value if self.exponent else np.ones_like(value)
        mean = np.maximum(weights.mean(-1), 1e-300)
        return value, (slope / mean)[:, None] * (amounts - ratio[:, None] * weights)


def mean(first: Ratio, second: Ratio | None, confidence: float, *, bound: float = 0.0) -> Interval:
    """Of `first` - `second`, or of `first` alone; a difference is about to be held against `bound`."""
    count = len(first.amounts)
    if count < FEWEST:
        return UNKNOWN
    generator = np.random.default_rng(SEED)
    order = generator.permutation(count) if count > MOST_UNITS else None
    first, second = first.units(order), second.units(order) if second is not None else None
    n = len(first.amounts)

    def looked_at(draws: NDArray[np.int64]) -> tuple[Values, Values]:
        value, parts = first.drawn(draws)
        if second is not None:
            other, others = second.drawn(draws)
            value, parts = value - other, parts - others
        return value, np.sqrt((parts**2).mean(-1) / (n - 1))

    whole, error = looked_at(np.arange(n)[None])
    if error[0] <= 1e-12 * max(1.0, abs(float(whole[0]))):
        return Interval(float(whole[0]), float(whole[0]))
    distances = []
    rows = max(1, BLOCK // n)
    for start in range(0, RESAMPLES, rows):
        draws = generator.integers(0, n, (min(rows, RESAMPLES - start), n))
        value, errors = looked_at(draws)
        # A draw of one record again and again has no spread; it is as far out as can be.
        distances.append((value - whole) / np.maximum(errors, 1e-12))
    below, above = np.quantile(np.concatenate(distances), [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = float(whole[0] - above * error[0]), float(whole[0] - below * error[0])
    if second is not None and by_chance(_paired(first, second, bound)) > MARGIN * (1 - confidence):
        low, high = min(low, bound), max(high, bound)
    return Interval(low, high)


def _paired(first: Ratio, second: Ratio, bound: float) -> Values:
    """What each record adds to the difference beyond the bound. Two perplexities are equal where the losses are."""
    if bound == 0:
        return first.amounts - second.amounts
    draw = np.arange(len(first.amounts))[None]
    (value, parts), (other, others) = first.drawn(draw), second.drawn(draw)
    found: Values = (value - other - bound) + (parts - others)[0]
    return found


def by_chance(values: Values) -> float:
    """Probability of a sum at least as far from 0, were the sign of each value a coin's choice."""
    generator = np.random.default_rng(SEED)
    whole, n = abs(float(values.sum())), len(values)
    hits, rows = 0, max(1, BLOCK // n)
    for start in range(0, RESAMPLES, rows):
        signs = generator.integers(0, 2, (min(rows, RESAMPLES - start), n), dtype=np.int8)
        sums = 2 * (signs @ values) - values.sum()
        hits += int((np.abs(sums) >= whole * (1 - 1e-9)).sum())
    return (hits + 1) / (RESAMPLES + 1)


def median(first: Values, second: Values | None, confidence: float) -> Interval:
    """Of the difference of two medians over the same records, or of one."""
    n = len(first)
    if n < FEWEST:
        return UNKNOWN
    draws = np.random.default_rng(SEED).integers(0, n, (RESAMPLES, n))
    found = np.median(first[draws], axis=-1)
    if second is not None:
        found -= np.median(second[draws], axis=-1)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _at_least(k: int, n: int, p: float) -> float:
    """Probability of at least `k` of `n`, each with `p`."""
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    ks = np.arange(k, n + 1)
    logs = math.lgamma(n + 1) + ks * math.log(p) + (n - ks) * math.log1p(-p)
    logs -= np.array([math.lgamma(i + 1) + math.lgamma(n - i + 1) for i in ks.tolist()])
    return float(np.exp(logs).sum())


def _crossing(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that grows from below 0 to above crosses it."""
    for _ in range(60):
        middle = (low + high) / 2
        if f(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
