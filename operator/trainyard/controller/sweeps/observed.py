"""Everything the planner may look at, and everything it may ask for: frozen values, one each a look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainyard.api.sweep.children import SweepRef
from trainyard.api.sweep.status import TrainingSweepStatus
from trainyard.controller.loop.subjects import Notice
from trainyard.controller.sweeps.trial import Trial


@dataclass(frozen=True)
class Observed:
    """The sweep and its trials at one moment."""

    sweep: SweepRef
    generation: int
    status: TrainingSweepStatus
    now: datetime
    trials: Mapping[int, Trial] = field(default_factory=dict)
    """By number."""
    noted: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Of each trial, the rungs that are written down on its run; the others of its rungs are new."""
    faults: tuple[str, ...] = ()
    """What is wrong with the spec."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Trials whose run the API server has just refused, with the reason."""


@dataclass(frozen=True)
class Create:
    """Make a trial's run; one of the same name that is ours is as good."""

    number: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Adjust:
    """Change a trial's run, all of it in one write."""

    name: str
    patch: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to do, in order; then the status."""

    status: TrainingSweepStatus
    actions: tuple[Create | Adjust, ...] = ()
    notices: tuple[Notice, ...] = ()
