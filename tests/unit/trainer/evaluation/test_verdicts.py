"""From columns to verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainyard.api.progress import EvaluationRecord, FinalRecord
from trainyard.api.run.evaluation import Gate
from trainyard.trainer.evaluation.gates import Column, NoChampion, judge, overall
from trainyard.trainer.evaluation.scores import REST, Scores

N = 60


def answers(right: int, *, n: int = N, first: int = 0) -> dict[str, Column]:
    marks = np.zeros(n)
    marks[first : first + right] = 1
    return {"exactMatch": Column(marks, np.ones(n))}


def losses(mean: float, *, seed: int = 0) -> dict[str, Column]:
    generator = np.random.default_rng(seed)
    weights = generator.integers(5, 20, N).astype(float)
    amounts = weights * (mean + generator.normal(0, 0.1, N))
    return {name: Column(amounts, weights) for name in ("loss", "perplexity")}


def gate(metric: str = "exactMatch", **asked: Any) -> Gate:
    return Gate.model_validate({"metric": metric, **asked})


@pytest.mark.parametrize(
    ("right", "champion", "verdict"), [(50, 20, "Promote"), (32, 30, "Inconclusive"), (20, 50, "Reject")]
)
def test_a_gain_over_the_champion(right: int, champion: int, verdict: str) -> None:
    found = judge(gate("accuracy", minimumGain=0), answers(right), answers(champion))
    assert found["verdict"] == verdict
    assert found["metric"] == "exactMatch"
    assert found["gain"] == pytest.approx((right - champion) / N)
    assert found["reference"] == pytest.approx(champion / N)
    assert found["interval"][0] <= found["gain"] <= found["interval"][1]
    assert found["n"] == N


def test_a_model_is_no_better_than_itself_and_not_worse_than_by_a_tenth() -> None:
    same = answers(40)
    assert judge(gate(minimumGain=0), same, same)["verdict"] == "Inconclusive"
    assert judge(gate(minimumGain=-0.1), same, same)["verdict"] == "Promote"
    assert judge(gate(minimumGain=0.2), same, same)["verdict"] == "Reject"


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_of_a_loss_lower_is_better(metric: str) -> None:
    better, worse = losses(1.0), losses(1.5, seed=1)
    assert judge(gate(metric, minimumGain=0), better, worse)["verdict"] == "Promote"
    rejected = judge(gate(metric, minimumGain=0), worse, better)
    assert rejected["verdict"] == "Reject"
    assert rejected["gain"] < 0
    assert rejected["interval"][1] < 0


@pytest.mark.parametrize("loss", [5000.0, 290.0, float("nan")])
def test_a_model_that_has_diverged_is_rejected(loss: float) -> None:
    column = {"perplexity": Column(np.full(N, loss) + np.arange(N), np.ones(N))}
    assert judge(gate("perplexity", maximum=100), column, None)["verdict"] == "Reject"
    assert judge(gate("perplexity", minimumGain=0), column, losses(1.0))["verdict"] == "Reject"


def test_a_champion_that_has_diverged_tells_nothing() -> None:
    found = judge(gate("loss", minimumGain=0), losses(1.0), {"loss": Column(np.full(N, np.nan), np.ones(N))})
    assert found["verdict"] == "Inconclusive"


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        ({"minimum": 0.5}, "Promote"),
        ({"minimum": 0.7}, "Inconclusive"),
        ({"minimum": 0.7, "confidence": 0}, "Promote"),
        ({"minimum": 0.76, "confidence": 0}, "Reject"),
        ({"minimum": 0.95}, "Reject"),
        ({"maximum": 0.9}, "Promote"),
        ({"maximum": 0.5}, "Reject"),
        ({"minimum": 0.5, "maximum": 0.76}, "Inconclusive"),
    ],
)
def test_limits_hold_for_sure_or_for_the_value(asked: dict[str, float], verdict: str) -> None:
    found = judge(gate(**asked), answers(45), None)
    assert found["verdict"] == verdict
    if verdict == "Inconclusive":
        assert "confidence: 0" in found["message"]


def test_without_confidence_the_bound_itself_is_enough() -> None:
    assert judge(gate(minimumGain=0.25, confidence=0), answers(30), answers(15))["verdict"] == "Promote"
    assert judge(gate(minimumGain=0.26, confidence=0), answers(30), answers(15))["verdict"] == "Reject"


@pytest.mark.parametrize("verdict", ["Promote", "Reject"])
def test_no_champion_yet_is_judged_as_the_spec_says_and_limits_hold_all_the_same(verdict: Any) -> None:
    nobody = NoChampion(verdict, "no version of agent@champion")
    found = judge(gate(minimumGain=0.1), answers(30), nobody)
    assert found["verdict"] == verdict
    assert "no champion yet (no version of agent@champion)" in found["message"]
    assert "gain" not in found
    assert judge(gate(minimumGain=0.1, minimum=0.9), answers(30), nobody)["verdict"] == "Reject"


def test_records_that_say_nothing_are_left_out_of_both() -> None:
    mine, theirs = answers(30)["exactMatch"], answers(10)["exactMatch"]
    silent = np.ones(N)
    silent[50:] = 0
    found = judge(gate(minimumGain=0), {"exactMatch": Column(mine.amounts, silent)}, {"exactMatch": theirs})
    assert found["n"] == 50
    nothing = judge(gate(minimum=0), {"exactMatch": Column(mine.amounts, np.zeros(N))}, None)
    assert nothing["verdict"] == "Inconclusive"
    assert "no held-out record" in nothing["message"]


def test_the_worst_gate_decides_and_says_why() -> None:
    good = judge(gate(minimum=0.1), answers(50), None)
    bad = judge(gate("loss", maximum=1), losses(2.0), None)
    found = overall([good, bad])
    assert (found["verdict"], found["passed"]) == ("Reject", False)
    assert found["message"].startswith("loss 2")
    assert overall([good])["passed"]
    assert overall([]) == {}


def test_the_same_scores_give_the_same_words() -> None:
    asked = gate("loss", minimumGain=0.3)
    assert judge(asked, losses(1.0), losses(1.4, seed=2)) == judge(asked, losses(1.0), losses(1.4, seed=2))


def test_sixteen_verdicts_survive_a_record_that_is_too_long() -> None:
    one = judge(gate(minimum=0.1), answers(50), None)
    judged = [{**one, "metric": f"exactMatch{n}"} for n in range(16)]
    record = FinalRecord(
        step="evaluate",
        outcome="Succeeded",
        evaluation=EvaluationRecord.model_validate(
            {**overall(judged), "metrics": {f"metric{n}": 1.5 for n in range(60)}}
        ),
        last_log_lines=["x" * 300] * 20,
    )
    text = record.fit(4096)
    assert len(text.encode()) <= 4096
    kept = FinalRecord.model_validate_json(text).evaluation
    assert kept is not None
    assert kept.verdict == "Promote"
    assert [g.verdict for g in kept.gates] == ["Promote"] * 16


def test_groups_are_bounded_and_the_rest_is_taken_together() -> None:
    rows = [
        {"record": n, "digest": str(n), "source": f"s{min(n % 40, 25)}", "type": "t", "exactMatch": n % 2}
        for n in range(400)
    ]
    groups = Scores(rows).groups(("exactMatch",))
    assert len(groups["source"]) == 21
    assert REST in groups["source"]
    assert sum(group["records"] for group in groups["source"].values()) == 400
    assert groups["type"] == {"t": {"records": 400, "exactMatch": 0.5}}
    assert next(iter(groups["source"])) == "s25"
