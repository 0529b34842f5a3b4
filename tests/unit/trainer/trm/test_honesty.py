"""Confidence, baselines and the gate, against numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainyard.api.run.evaluation import Evaluation, Gate
from trainyard.trainer.errors import UserError
from trainyard.trainer.trm.baselines import majority, nearest_neighbour
from trainyard.trainer.trm.evaluate import judged
from trainyard.trainer.trm.folder import flat_split
from trainyard.trainer.trm.honesty import calibration_error, discrimination, risk_at_coverage
from trainyard.trainer.trm.measure import Answers


def test_discrimination_is_the_share_of_pairs_in_the_right_order() -> None:
    confidence = np.array([3.0, 1.0, 2.0, 0.0])
    solved = np.array([True, True, False, False])
    assert discrimination(confidence, solved) == pytest.approx(3 / 4)
    assert discrimination(np.zeros(4), solved) == pytest.approx(0.5)
    assert discrimination(confidence, np.ones(4, dtype=bool)) is None


def test_risk_falls_when_only_the_surest_are_answered() -> None:
    confidence = np.array([5.0, 4.0, -1.0, -2.0])
    solved = np.array([True, True, False, True])
    assert risk_at_coverage(confidence, solved) == {
        "25%": 0,
        "50%": 0,
        "75%": pytest.approx(1 / 3),
        "90%": 0.25,
        "100%": 0.25,
    }


def test_a_head_that_believes_what_is_true_is_calibrated() -> None:
    sure = np.full(10, 40.0)
    assert calibration_error(sure, np.ones(10, dtype=bool)) == pytest.approx(0)
    assert calibration_error(sure, np.zeros(10, dtype=bool)) == pytest.approx(1)


def test_the_simple_means_are_measured_exactly() -> None:
    train = flat_split(np.array([[5, 6], [5, 7], [8, 8]]), np.array([[1, 2], [1, 2], [3, 2]]), vocab_size=9)
    asked = flat_split(np.array([[5, 6], [8, 8], [8, 1]]), np.array([[1, 2], [3, 2], [1, 2]]), vocab_size=9)
    assert majority(train, asked).tolist() == [True, False, True]
    assert nearest_neighbour(train, asked, texts=False).tolist() == [True, True, False]
    assert nearest_neighbour(train, asked, texts=True).tolist() == [True, True, False]


def shares(**shares: float) -> dict[str, NDArray[np.bool_]]:
    return {name: np.arange(100) < 100 * share for name, share in shares.items()}


def answered(share: float) -> Answers:
    solved = np.arange(100) < round(100 * share)
    return Answers(np.zeros((100, 1), dtype=np.int64), np.zeros(100, dtype=np.float32), solved, solved.astype(float))


def test_only_a_real_gain_passes() -> None:
    baselines = shares(Majority=0.2, NearestNeighbor=0.7, NoRecursion=0.9)
    short = Evaluation(minimum_gain=0.05).all_gates()
    assert judged([], answered(0.8), baselines) == {}
    passed = judged(short, answered(0.8), baselines)
    assert passed["passed"]
    assert "0.7 of NearestNeighbor" in passed["message"]
    refused = judged(short, answered(0.74), baselines)
    assert not refused["passed"]
    assert "+0.04" in refused["message"]
    with pytest.raises(UserError, match="need something to be better than"):
        judged(short, answered(0.8), shares(NoRecursion=0.1))


def test_a_gate_of_the_new_kind_wants_to_be_sure() -> None:
    baselines = shares(NearestNeighbor=0.7)
    gate = Gate(metric="accuracy", minimum_gain=0.05)
    assert judged([gate], answered(0.77), baselines)["verdict"] == "Inconclusive"
    assert judged([gate], answered(0.95), baselines)["verdict"] == "Promote"
    assert judged([gate], answered(0.6), baselines)["verdict"] == "Reject"
