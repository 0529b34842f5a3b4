"""Intervals and tests against direct enumeration, and what is promised: among equals, a wrong verdict is rare."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.trainer.evaluation.statistics import (
    UNKNOWN,
    Interval,
    Ratio,
    by_chance,
    difference,
    mcnemar,
    mean,
    median,
    share,
)

COMPARISONS = 1000


def probability(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (6, 0), (9, 2), (7, 7), (3, 12)])
def test_mcnemar_counts_all_splits_that_are_as_uneven(wins: int, losses: int) -> None:
    n = wins + losses
    splits = [k for k in range(n + 1) if abs(2 * k - n) >= abs(wins - losses)]
    assert mcnemar(wins, losses) == pytest.approx(sum(math.comb(n, k) for k in splits) / 2**n)


def test_mcnemar_of_very_many_differs_little_from_the_exact_one() -> None:
    exact = 2 * sum(math.comb(999, k) for k in range(470)) / 2**999
    assert mcnemar(469, 530) == pytest.approx(exact)
    assert mcnemar(470, 531) == pytest.approx(exact, rel=0.03)


@given(n=st.integers(1, 60), data=st.data(), confidence=st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_the_interval_of_a_share_ends_where_so_many_or_so_few_would_be_rare(
    n: int, data: st.DataObject, confidence: float
) -> None:
    right = data.draw(st.integers(0, n))
    found, rest = share(right, n, confidence), (1 - confidence) / 2
    assert found.low <= right / n <= found.high
    if right:
        assert sum(probability(k, n, found.low) for k in range(right, n + 1)) == pytest.approx(rest, rel=1e-6)
    if right < n:
        assert sum(probability(k, n, found.high) for k in range(right + 1)) == pytest.approx(rest, rel=1e-6)


def test_an_exact_interval_known_from_tables() -> None:
    found = share(45, 50, 0.95)
    assert (found.low, found.high) == (pytest.approx(0.7819, abs=1e-4), pytest.approx(0.9667, abs=1e-4))


@pytest.mark.parametrize(("n", "differing"), [(12, 0.2), (12, 0.6), (20, 0.1), (20, 0.4), (30, 0.9)])
def test_of_equals_the_wrong_verdicts_of_yes_and_no_stay_below_the_promise(n: int, differing: float) -> None:
    """Every outcome, with its probability: no simulation."""
    wrong = 0.0
    for wins, losses in itertools.product(range(n + 1), repeat=2):
        if wins + losses > n:
            continue
        found = difference(wins, losses, n, 0.95)
        if found.low > 0 or found.high < 0:
            ways = math.factorial(n) // (
                math.factorial(wins) * math.factorial(losses) * math.factorial(n - wins - losses)
            )
            wrong += ways * (differing / 2) ** (wins + losses) * (1 - differing) ** (n - wins - losses)
    assert wrong <= 0.05


@given(n=st.integers(1, 80), data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_interval_of_a_difference_is_the_mirror_of_the_others(n: int, data: st.DataObject) -> None:
    wins = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - wins))
    one, other = difference(wins, losses, n, 0.95), difference(losses, wins, n, 0.95)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert one.high == pytest.approx(-other.low, abs=1e-9)
    assert -1 <= one.low <= (wins - losses) / n <= one.high <= 1
    assert (one.low > 0 or one.high < 0) <= (mcnemar(wins, losses) <= 0.05)


def test_models_that_never_differ_are_not_equal_for_sure() -> None:
    few, many = difference(0, 0, 20, 0.95), difference(0, 0, 2000, 0.95)
    assert few.low < -0.1
    assert few.high > 0.1
    assert many.high < 0.005


def test_a_sign_test_of_few_values_counts_all_signs() -> None:
    values = np.array([3.0, 1.0, 2.0, 4.0, 2.5, 0.5, 1.5, -0.25])
    whole = abs(values.sum())
    signs = itertools.product((-1, 1), repeat=len(values))
    exact = np.mean([abs(np.dot(sign, values)) >= whole * (1 - 1e-9) for sign in signs])
    assert by_chance(values) == pytest.approx(exact, abs=0.005)


def test_the_interval_of_a_mean_is_about_that_of_student_where_that_is_right() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(5, 2, 60)
    found = mean(Ratio(values, np.ones(60)), None, 0.95)
    half = 2.001 * values.std(ddof=1) / math.sqrt(60)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), exponent=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_difference_the_other_way_round_is_the_mirror(seed: int, n: int, exponent: bool) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.integers(1, 9, n).astype(float)
    one, other = (Ratio(weights * generator.gamma(2, 1, n), weights, exponent) for _ in range(2))
    there, back = mean(one, other, 0.9), mean(other, one, 0.9)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.high == pytest.approx(-back.low, abs=1e-9)
    assert there.low <= one.value - other.value <= there.high
    assert mean(one, other, 0.9) == there


def test_the_mean_is_one_over_tokens_and_not_over_records() -> None:
    ratio = Ratio(np.array([10.0, 1.0]), np.array([10.0, 1000.0]))
    assert ratio.value == pytest.approx(11 / 1010)
    assert Ratio(ratio.amounts, ratio.weights, exponent=True).value == pytest.approx(math.exp(11 / 1010))


def test_equal_scores_have_no_spread_and_single_records_say_nothing() -> None:
    ratio = Ratio(np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert mean(ratio, ratio, 0.95) == Interval(0.0, 0.0)
    assert mean(Ratio(np.ones(1), np.ones(1)), None, 0.95) == UNKNOWN
    assert median(np.ones(1), None, 0.95) == UNKNOWN
    assert share(0, 0, 0.95) == UNKNOWN
    assert difference(0, 0, 0, 0.95) == UNKNOWN


def test_many_records_are_taken_in_groups_with_about_the_same_interval() -> None:
    generator = np.random.default_rng(4)
    values = generator.gamma(2, 1, 20_000)
    found = mean(Ratio(values, np.ones(len(values))), None, 0.95)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_a_median_of_times_is_told_from_one_that_is_far_away() -> None:
    generator = np.random.default_rng(5)
    quick, slow = generator.gamma(20, 0.05, 16), generator.gamma(20, 0.15, 16)
    assert median(quick, slow, 0.95).high < 0
    again = median(quick, quick, 0.95)
    assert again.low == again.high == 0


@pytest.mark.load
@pytest.mark.parametrize("n", [12, 50, 200])
def test_a_thousand_comparisons_of_equals_are_wrong_at_most_one_time_in_twenty(n: int) -> None:
    """Skewed losses over answers of very different length, and right answers to questions of very different difficulty."""
    generator = np.random.default_rng(n)
    wrong = {"loss": 0, "perplexity": 0, "exactMatch": 0}
    for _ in range(COMPARISONS):
        tokens = generator.integers(3, 60, n).astype(float)
        of_record = generator.gamma(2, 0.3, n)
        losses = [
            tokens * np.maximum(0, of_record + generator.normal(0, 0.2, n) * generator.gamma(1, 1, n)) for _ in "ab"
        ]
        for metric in ("loss", "perplexity"):
            found = mean(*(Ratio(loss, tokens, metric == "perplexity") for loss in losses), 0.95)
            wrong[metric] += found.low > 0 or found.high < 0
        easy = generator.beta(2, 1, n)
        one, other = generator.random(n) < easy, generator.random(n) < easy
        verdict = difference(int((one & ~other).sum()), int((other & ~one).sum()), n, 0.95)
        wrong["exactMatch"] += verdict.low > 0 or verdict.high < 0
    print(f"n {n}: wrong of {COMPARISONS}: {wrong}")
    assert max(wrong.values()) <= 0.05 * COMPARISONS
