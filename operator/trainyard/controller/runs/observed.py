"""Everything the planner may look at: one frozen value per reconcile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Any

from trainyard.api.progress import ProgressRecord
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.runs.pods import telling
from trainyard.controller.runs.views import JobView, PodView
from trainyard.controller.runs.waiting import Complaint


class Question(Enum):
    """What the planner wants to know before it decides."""

    CHILDREN = auto()
    """Jobs and pods of the run."""
    PREREQUISITES = auto()
    """The run's Secret, its claims, the Secrets that it names."""
    EVENTS = auto()
    """Newest warning about what the current Job waits for."""
    NODES = auto()
    """Whether any node could hold the pod, and who holds what it waits for."""


@dataclass(frozen=True)
class Prerequisites:
    """Objects that have to be there before a Job is made. Looked up only when one is about to be made."""

    config_hash: str | None = None
    """spec-hash of the run's own Secret; None where it does not exist."""
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Claims that exist, by name."""
    missing_secrets: Mapping[str, str] = field(default_factory=dict)
    """Secrets that sources name and that do not exist, with the naming field."""


@dataclass(frozen=True)
class Observed:
    """The run and its children at one moment."""

    run: RunRef
    generation: int
    status: TrainingRunStatus
    now: datetime
    fresh: bool = False
    """The run has no status yet: nothing was looked up, because nothing can exist (and creating would tell if it did)."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    prerequisites: Prerequisites = Prerequisites()
    """Empty until they have been looked up."""
    warning: Complaint | None = None
    """Newest warning Event about what the current Job waits for."""
    impossible: tuple[str, ...] = ()
    """Why no node can ever hold the pod, where it is unschedulable."""
    line: str = ""
    """Who has the device that the pod waits for, and who stands in line before it."""
    conflict: str | None = None
    """An object of a name the run needs that belongs to somebody else."""
    progress: ProgressRecord | None = None
    cancel: str | None = None
    """Why the run is to be ended for good; None when nobody asked for it."""
    trained_already: str | None = None
    """Digest of prepared data with which there is nothing new to train."""

    @property
    def told_to_stop(self) -> bool:
        """Whether no pod of the run is to work now: it is suspended, or ended for good."""
        return self.run.spec.suspend or self.cancel is not None

    @property
    def open_job(self) -> JobView | None:
        """The newest Job that has not finished."""
        return max((j for j in self.jobs if not j.finished), key=lambda j: j.created, default=None)

    def pod_of(self, job: JobView) -> PodView | None:
        """The pod that tells how the Job fares: its newest; of several, the one that the others wait for."""
        return telling(job, self.pods_of(job))

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Job's pods, the newest of each index, in order."""
        newest: dict[int, PodView] = {}
        for pod in sorted((p for p in self.pods if p.job == job.name), key=lambda p: p.created):
            newest[pod.index] = pod
        return tuple(newest[index] for index in sorted(newest))

    def left_behind(self) -> PodView | None:
        """A pod that still runs, or may, while its Job is gone: deleted without it, or a moment before it."""
        jobs = {job.name for job in self.jobs}
        return next((p for p in self.pods if p.live and p.job not in jobs), None)

    def job_of(self, step: str, attempt: int) -> JobView | None:
        """The Job of an attempt, if it exists."""
        return next((j for j in self.jobs if j.step == step and j.attempt == attempt), None)


@dataclass(frozen=True)
class Policy:
    """Settings that steer decisions."""

    defaults: Defaults
    retry_base_seconds: float = 10.0
    """Delay before the first counted retry; doubles with each further one."""
    retry_cap_seconds: float = 360.0
    progress_interval_seconds: float = 8.0
    """At most one status write per run and interval, where nothing but numbers moved."""
    progress_writes_per_second: float = 25.0
    """Budget of such writes over all runs; with more active runs than fit, each one's interval grows."""
