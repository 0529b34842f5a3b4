"""What a method minimises, where that is not the likelihood of the next token.

`CommittingTrainer` owns the loop: steps, optimizer, checkpoints, stops, logs. A method adds one of these to it and gets all
of that. Its losses are sums divided by a count over the whole step, so that it makes no difference whether a step is one
large micro-batch or eight small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

Batch = dict[str, Any]


class Interrupted(Exception):
    """A stop signal came in during work that can be repeated: leave with the state of the last whole step."""


class Objective(Protocol):
    """One method. `metrics` have TRL's names."""

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        """The micro-batches of optimizer step `step` (from 0), and what their loss is divided by.

        `given` are those of the data loader, each with TOKEN_COUNT. Must return the same after a restart.
        """

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """This micro-batch's share of the step's loss, and metrics of it. Without `items`, the loss of this batch alone."""

    def evaluate(self, model: Any, *, batch_size: int) -> dict[str, float]:
        """Metrics over the held-out data. The model is in evaluation mode."""

    def write(self, folder: Path) -> None:
        """Add to a checkpoint what is needed beside the model; read again when the method is set up."""


@dataclass(frozen=True)
class Recipe:
    """What is trained on, and how."""

    train_set: Any
    """Has a length and can be indexed; the loader takes it in the order of `EpochOrder`."""
    eval_set: Any
    """Held-out data for evaluations in between; None without."""
    collate: Callable[[list[Batch]], Batch]
    count: int
    """Entries of the data,"""
    unit: str
    """and what they are called."""
    objective: Objective | None = None
    """None: the next token."""
    attach: Callable[[Any], None] = lambda model: None
    """Called with the model before training."""
