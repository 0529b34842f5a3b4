"""Ending a training when its evaluations get no better, for all kinds of trainings alike.

What has been seen so far is part of a checkpoint, so that a training that is continued ends at the same step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainyard.api.run.methods import FALLING
from trainyard.api.run.training import EarlyStopping


@dataclass
class Seen:
    """The best value so far, and how many evaluations since have not been better by enough."""

    best: float | None = None
    step: int = 0
    """Of the best value."""
    waited: int = 0
    over: bool = False
    """Whether the patience has come to its end."""

    def notice(self, value: float, step: int, rule: EarlyStopping, metric: str) -> bool:
        """Take in an evaluation. Returns whether the training is over."""
        gain = math.inf if self.best is None else value - self.best
        if metric in FALLING and self.best is not None:
            gain = -gain
        if math.isnan(value):
            gain = -math.inf
        if gain > rule.minimum_delta:
            self.best, self.step, self.waited = value, step, 0
        else:  # also a value that is no number
            self.waited += 1
        self.over = self.waited >= rule.patience
        return self.over

    def told(self, metric: str, step: int) -> str:
        """Why the training ends."""
        best = "no number" if self.best is None else f"{self.best:.6g} at step {self.step}"
        return f"stopped early at step {step}: {metric} of the held-out data was best with {best}, {self.waited} evaluations ago"
