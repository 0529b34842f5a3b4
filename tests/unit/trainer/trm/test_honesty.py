"""Confidence, baselines and the gate, against numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainyard.trainer.errors import UserError
from trainyard.trainer.trm.baselines import majority, nearest_neighbour
from trainyard.trainer.trm.evaluate import gate
from trainyard.trainer.trm.folder import flat_split
from trainyard.trainer.trm.honesty import calibration_error, discrimination, risk_at_coverage


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
    assert majority(train, asked) == pytest.approx(2 / 3)
    assert nearest_neighbour(train, asked, texts=False) == pytest.approx(2 / 3)
    assert nearest_neighbour(train, asked, texts=True) == pytest.approx(2 / 3)


def test_only_a_real_gain_passes() -> None:
    baselines = {"Majority": 0.2, "NearestNeighbor": 0.7, "NoRecursion": 0.9}
    assert gate(0.8, baselines, None) == {}
    passed = gate(0.8, baselines, 0.05)
    assert passed["passed"]
    assert "beats NearestNeighbor (70.0%)" in passed["message"]
    refused = gate(0.74, baselines, 0.05)
    assert not refused["passed"]
    assert "+4.0%" in refused["message"]
    with pytest.raises(UserError, match="needs something to be better than"):
        gate(0.8, {"NoRecursion": 0.1}, 0.05)
