"""Everything the planner may look at: one frozen value per reconcile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from functools import cached_property
from typing import Any

from trainyard.api.progress import ProgressRecord
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.manifests.storage import ClaimUse, claims
from trainyard.controller.runs.cost import NO_PRICES, Prices
from trainyard.controller.runs.pods import telling
from trainyard.controller.runs.publish import Found
from trainyard.controller.runs.views import JobView, PodView
from trainyard.controller.runs.waiting import NOTHING_FOUND, Waited
from trainyard.controller.runs.yielding import Yielding


class Question(Enum):
    """What the planner wants to know before it decides."""

    CHILDREN = auto()
    """Jobs and pods of the run."""
    PREREQUISITES = auto()
    """The run's Secret, its claims, the Secrets that it names."""
    EVENTS = auto()
    """Newest complaint about what each waiting Job waits for."""
    QUEUE = auto()
    """Whether anybody listens to the queue that the run names."""
    NODES = auto()
    """Whether any node could hold a pod that has none, and who holds what it waits for."""
    USED = auto()
    """GPU hours of this month."""
    PUBLISHED = auto()
    """The objects that exports of the operator's own are about."""
    YIELDING = auto()
    """The Deployments that make room for the training."""


@dataclass(frozen=True)
class Held:
    """An object of a name that follows from the run's; whoever made it."""

    uid: str
    version: str
    """Its resourceVersion."""
    owned: bool
    """Whether the run controls it. Nothing else is ever changed or deleted."""
    made_from: str = ""
    """Hash of what it says."""


@dataclass(frozen=True)
class Prerequisites:
    """Objects that have to be there before a Job is made. Looked up only when one is about to be made."""

    config: Held | None = None
    """The run's own Secret."""
    service: Held | None = None
    """The Service of a run with several pods."""
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Claims that exist, by name."""
    missing_secrets: Mapping[str, str] = field(default_factory=dict)
    """Secrets that sources name and that do not exist, with the naming field."""


@dataclass(frozen=True)
class Used:
    """GPU seconds of this month in the run's namespace."""

    in_all: int = 0
    of_agent: int = 0
    """Of the agent that the run belongs to."""


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
    waits: Mapping[str, Waited] = field(default_factory=dict)
    """What was found out about Jobs that wait, by their names."""
    met: frozenset[str] = frozenset()
    """Names of Jobs that were in the way of one that was to be made; by no label were they known."""
    conflict: str | None = None
    """A Job of an earlier run, or of a name that the run needs."""
    conflict_lasts: bool = False
    """It does not go away by itself."""
    dying_claims: frozenset[str] = frozenset()
    """Claims of the namespace that somebody has deleted, as the watch tells: a hint, and a reason to look."""
    progress: ProgressRecord | None = None
    deaf: bool = False
    """What pods have told is left out of the status, because the API server would not take it."""
    cancel: str | None = None
    """Why the run is to be ended for good; None when nobody asked for it."""
    approved: str | None = None
    """Who says that it may begin, or why; None when nobody has."""
    rollback: str | None = None
    """Why the promotion of the result is to be taken back; None when nobody asked for it."""
    trained_already: str | None = None
    """Digest of prepared data with which there is nothing new to train."""
    token: str = field(default="", repr=False)
    """The run's bearer token: what its pods report with."""
    used: Used = Used()
    published: Mapping[str, Found] = field(default_factory=dict)
    """By step: the objects that an export of the operator's own is about."""
    yielding: tuple[Yielding, ...] = ()
    """The Deployments of placement.yieldFrom, in order."""
    answered: frozenset[Question] = frozenset()
    """Questions that have been looked up."""

    def knows(self, question: Question) -> bool:
        """Whether this has been looked up."""
        return question in self.answered

    @cached_property
    def claims(self) -> tuple[ClaimUse, ...]:
        """Every claim that the run's pods mount, whether it exists or not."""
        return tuple(claims(self.run))

    @property
    def told_to_stop(self) -> bool:
        """Whether no pod of the run is to work now: it is suspended, or ended for good."""
        return self.run.spec.suspend or self.cancel is not None

    def pod_of(self, job: JobView) -> PodView | None:
        """The pod that tells how the Job fares: its newest; of several, the one that the others wait for."""
        return telling(job, self.pods_of(job))

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Job's pods, the newest of each index, in order."""
        return self._pods_by_job.get(job.name, ())

    @cached_property
    def _pods_by_job(self) -> Mapping[str, tuple[PodView, ...]]:
        newest: dict[str, dict[int, PodView]] = {}
        for pod in sorted(self.pods, key=lambda p: p.created):
            newest.setdefault(pod.job, {})[pod.index] = pod
        return {job: tuple(pods[index] for index in sorted(pods)) for job, pods in newest.items()}

    def about(self, job: JobView) -> Waited:
        """What was found out about a Job that waits; nothing where nobody has asked."""
        return self.waits.get(job.name, NOTHING_FOUND)

    def left_behind(self) -> list[PodView]:
        """Pods that still run, or may, while their Job is gone: deleted without them, or a moment before them."""
        jobs = {job.name for job in self.jobs}
        return [p for p in self.pods if p.live and p.job not in jobs]

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
    prices: Prices = NO_PRICES
    monthly_gpu_hours: Mapping[str, float] = field(default_factory=dict)
    """That a namespace, or `namespace/agent`, may use in a month."""
