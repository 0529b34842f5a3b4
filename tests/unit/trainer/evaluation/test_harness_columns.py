"""What the harness found, as gates judge it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainyard.api.run.evaluation import Gate
from trainyard.trainer.errors import UserError
from trainyard.trainer.evaluation.gates import judge
from trainyard.trainer.evaluation.harness.ask import Asked
from trainyard.trainer.evaluation.harness.columns import check_same_records, columns_of

N = 40


def asked(metric: str, told: float, scores: list[Any]) -> Asked:
    kind = metric.partition(".")[2] or "none"
    own = metric.partition("/")[2].partition(".")[0]
    rows = [{"task": "pods", "record": n, "filter": kind, own: score} for n, score in enumerate(scores)]
    return Asked({metric: told}, [*rows, {"task": "other", "record": 0, "filter": kind, own: 0.0}])


def verdict(metric: str, result: Asked, champion: Asked | None = None, **gate: Any) -> dict[str, Any]:
    asks = Gate.model_validate({"metric": metric, **gate})
    theirs = columns_of(champion, [metric]) if champion else None
    return judge(asks, columns_of(result, [metric]), theirs)


def right(count: int) -> Asked:
    return asked("pods/acc", count / N, [1.0] * count + [0.0] * (N - count))


@pytest.mark.parametrize(
    ("mine", "theirs", "wanted"), [(30, 10, "Promote"), (21, 20, "Inconclusive"), (5, 30, "Reject")]
)
def test_yes_and_no_on_the_same_records_are_compared_in_pairs(mine: int, theirs: int, wanted: str) -> None:
    found = verdict("pods/acc", right(mine), right(theirs), minimumGain=0)
    assert (found["verdict"], found["n"], found["reference"]) == (wanted, N, theirs / N)


def test_a_share_alone_has_an_exact_interval() -> None:
    found = verdict("pods/acc", right(36), minimum=0.7)
    assert found["verdict"] == "Promote"
    assert found["interval"] == pytest.approx([0.7634, 0.9721], abs=1e-3), "Clopper-Pearson of 36 of 40"


def test_a_perplexity_is_made_of_likelihoods_and_lower_is_better() -> None:
    """By word: the harness has a sum of logarithms and a number of words for each record."""
    scores = [[-2.0 * (3 + n % 5), float(3 + n % 5)] for n in range(N)]
    mine = asked("pods/word_perplexity", math.exp(2.0), scores)
    theirs = asked("pods/word_perplexity", math.exp(3.0), [[1.5 * ll, words] for ll, words in scores])
    found = verdict("pods/word_perplexity", mine, theirs, minimumGain=0)
    assert (found["verdict"], found["value"]) == ("Promote", pytest.approx(math.exp(2.0)))
    assert verdict("pods/word_perplexity", theirs, mine, minimumGain=0)["verdict"] == "Reject"
    bits = asked("pods/bits_per_byte", 2.0 / math.log(2), scores)
    assert verdict("pods/bits_per_byte", bits, maximum=3)["value"] == pytest.approx(2.0 / math.log(2))


def test_what_is_no_mean_of_its_records_is_judged_as_a_whole() -> None:
    """A median, say: the records do not make up what is told."""
    median = asked("pods/acc_bytes", 0.9, [0.1] * 19 + [0.9] * 21)
    assert "give confidence: 0" in verdict("pods/acc_bytes", median, minimum=0.5)["message"]
    found = verdict("pods/acc_bytes", median, minimum=0.5, confidence=0)
    assert (found["verdict"], found["value"], found["n"]) == ("Promote", pytest.approx(0.9), N)
    perplexity = asked("pods/perplexity", 7.0, [])
    assert verdict("pods/perplexity", perplexity, maximum=8, confidence=0)["value"] == pytest.approx(7.0)


def test_a_filter_has_scores_of_its_own() -> None:
    found = asked("pods/exact_match.strict", 1.0, [1.0] * N)
    plain = [{"task": "pods", "record": n, "filter": "none", "exact_match": 0.0} for n in range(N)]
    both = Asked({**found.metrics, "pods/exact_match": 0.0}, [*found.rows, *plain])
    assert verdict("pods/exact_match.strict", both, minimum=0.9)["verdict"] == "Promote"
    assert verdict("pods/exact_match", both, minimum=0.9)["verdict"] == "Reject"


def test_a_metric_that_is_not_there_decides_nothing() -> None:
    assert "is none of what the task measures" in verdict("pods/acc_norm", right(40), minimum=0.5)["message"]


def test_other_records_are_not_compared() -> None:
    with pytest.raises(UserError, match="was asked 11 records, the result 41, and not the same"):
        check_same_records(right(40), asked("pods/acc", 1.0, [1.0] * 10), told="the champion")
