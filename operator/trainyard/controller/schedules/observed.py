"""Everything the planner may look at: one frozen value per look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trainyard.api.schedule.children import ScheduleRef
from trainyard.api.schedule.status import TrainingScheduleStatus
from trainyard.controller.schedules.views import ChildView


@dataclass(frozen=True)
class Reading:
    """What a source answered. Every kind of trigger fills the part that it speaks of."""

    at: datetime
    token: str
    """Identifies what is there: two equal tokens are the same thing."""
    observed: str
    """The same for people."""
    holds: bool | None = None
    """For a trigger that speaks of a state: whether it is reached."""


@dataclass(frozen=True)
class Look:
    """The newest look at a source: when, the last answer, and what went wrong if it was not this look that gave it."""

    at: datetime
    reading: Reading | None = None
    error: str | None = None
    pause: float = 0.0
    """Seconds until the source is to be looked at again; a trigger's own `pollSeconds` may be longer."""
    note: str = ""
    """What there is to say about the look itself."""


@dataclass(frozen=True)
class Observed:
    """The schedule and its runs at one moment."""

    schedule: ScheduleRef
    generation: int
    status: TrainingScheduleStatus
    now: datetime
    children: tuple[ChildView, ...] = ()
    """Runs that this schedule controls."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """By trigger name; absent where no look has been taken since the operator started."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Runs that could not be made just now and never will be, with the reason."""

    def child(self, name: str) -> ChildView | None:
        """The run of this name, if it is ours."""
        return next((c for c in self.children if c.name == name), None)
