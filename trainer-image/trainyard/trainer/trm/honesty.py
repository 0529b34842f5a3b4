"""How far the model knows what it knows.

A model that says "I do not know" at the right moments is of use even where it is often wrong. The halting head gives a
confidence for each answer; answering only the surest ones lowers the error. These numbers say by how much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)
BINS = 10


def discrimination(confidence: NDArray[np.floating], solved: NDArray[np.bool_]) -> float | None:
    """Probability that a right answer is believed more than a wrong one (AUROC); None if all are alike."""
    right, wrong = int(solved.sum()), int((~solved).sum())
    if not right or not wrong:
        return None
    _, ranks, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts - 1) / 2
    return float((middle[ranks][solved].sum() - right * (right + 1) / 2) / (right * wrong))


def calibration_error(confidence: NDArray[np.floating], solved: NDArray[np.bool_]) -> float:
    """Mean distance between believed and real share of right answers, over ten bins of belief."""
    belief = 1 / (1 + np.exp(-np.clip(confidence, -60, 60)))
    bins = np.minimum((belief * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            total += inside.sum() * abs(float(belief[inside].mean()) - float(solved[inside].mean()))
    return float(total / len(solved))


def risk_at_coverage(confidence: NDArray[np.floating], solved: NDArray[np.bool_]) -> dict[str, float]:
    """Share of wrong answers when only the surest part of all problems is answered."""
    order = np.argsort(-confidence, kind="stable")
    wrong = ~solved[order]
    found = {}
    for coverage in COVERAGES:
        answered = max(1, round(coverage * len(wrong)))
        found[f"{coverage:.0%}"] = float(wrong[:answered].mean())
    return found
