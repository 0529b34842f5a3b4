"""What a checkpoint holds besides the weights, and how it is put back.

transformers' Trainer saves optimizer, scheduler, gradient scaler and its own counters in files that it also reads back.
Three things are missing from those for an exact continuation, and live here: the random number generators *as they were at
the end of the step* (a stop may come in the middle of the next one), the part of the loss that has not been logged yet,
and the counters behind tokens per second.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import safe_globals

from trainyard.trainer.frame.early_stop import Seen

RNG_FILE = "rng_state.pth"
"""Name and content as transformers' Trainer reads them back."""


def rng_file(rank: int) -> str:
    """The file of one of several processes."""
    return RNG_FILE if rank == 0 else f"rng_state_{rank}.pth"


COUNTERS_FILE = "trainyard.json"


@dataclass
class Counters:
    """Sums over the whole run, over all attempts."""

    tokens: int = 0
    seconds: float = 0.0
    """Time spent training."""
    unlogged_loss: float = 0.0
    last_logged_step: int = 0
    best_eval_loss: float | None = None
    best_step: int | None = None
    """Step of the best evaluation, where the best checkpoint is kept."""
    early: Seen = field(default_factory=Seen)
    """What `spec.training.earlyStopping` has seen."""
    ended: bool = False
    """Whether a callback of the user's own has ended the training."""
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What those have a state of, by name."""
    unlogged_metrics: dict[str, list[float]] = field(default_factory=dict)
    """Other metrics since the last log line, one value per micro-batch."""


def read_generators() -> dict[str, Any]:
    """The state of every random number generator that training draws from."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.random.get_rng_state()
    return states


def load_generators(file: Path) -> dict[str, Any]:
    """What was saved of `read_generators`; nothing in the file is executed."""
    with safe_globals():
        states: dict[str, Any] = torch.load(file, weights_only=True)
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Put the generators back to what `read_generators` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.random.set_rng_state(states["cuda"])


def write_counters(folder: Path, counters: Counters) -> None:
    """Save beside the weights."""
    (folder / COUNTERS_FILE).write_text(json.dumps(asdict(counters)))


def read_counters(folder: Path) -> Counters:
    """Read what `write_counters` wrote."""
    values = json.loads((folder / COUNTERS_FILE).read_text())
    return Counters(**{**values, "early": Seen(**values.get("early", {}))})
