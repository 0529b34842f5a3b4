"""A plan: what it is made of, and how it comes about step by step."""

from dataclasses import dataclass, field
from typing import Any

from trainyard.api.schedule.status import RunCounts, ScheduleReason, TrainingScheduleStatus
from trainyard.api.schedule.trainingschedule import Variant
from trainyard.controller.loop.subjects import Notice
from trainyard.controller.schedules.observed import Observed


@dataclass(frozen=True)
class Create:
    """Make a run; one of the same name that is ours is as good."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Cancel:
    """Have a run write a checkpoint and end."""

    name: str
    why: str


@dataclass(frozen=True)
class Delete:
    """Delete a run of the past."""

    name: str
    uid: str


Action = Create | Cancel | Delete


@dataclass(frozen=True)
class Plan:
    """What to do, in order; then the status. With `write_first` the status alone is written, and planned again."""

    status: TrainingScheduleStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    notices: tuple[Notice, ...] = ()
    polls: tuple[str, ...] = ()
    """Triggers whose source is to be asked."""
    write_first: bool = False


@dataclass
class Draft:
    """A plan in the making."""

    seen: Observed
    status: TrainingScheduleStatus
    actions: list[Action] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    """Seconds until something has to be looked at again."""
    waiting: str | None = None
    """Why a start that is due does not begin."""

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def count(self, **more: int) -> None:
        """Add to the counts of runs."""
        runs = self.status.runs or RunCounts()
        self.set(runs=runs.model_copy(update={k: getattr(runs, k) + n for k, n in more.items()}))

    def variants(self) -> list[Variant | None]:
        """One run is made for each, at the start that is under way; None is the template as it is."""
        wanted = self.status.firing.variants if self.status.firing else None
        every = self.seen.schedule.spec.variants
        if wanted is None:
            return list(every) or [None]
        return [v for v in every if v.name in wanted]

    def note(self, type: str, reason: ScheduleReason, message: str) -> None:
        """Have an Event made."""
        self.notices.append(Notice(type, reason, message))
