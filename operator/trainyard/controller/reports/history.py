"""What a run's numbers were over time: the seam between those who report and those who show.

Records of pods flow in (`Receiver`), curves flow out: to the lab's GET, to the live page, to whoever subscribes. A curve is
bounded, at most `POINTS` points a run; where more come, every second one goes. It outlives the pod and the operator: see
`keeper.py`.

How to read it, for a page:

    history = …                                   # a `History`
    curves = await history.points(key, uid)       # everything that is known, oldest first; empty where nothing is
    async for news in history.subscribe(last_event_id=request.headers.get("Last-Event-ID")):
        ...                                       # write news.id, and news as JSON

Points and marks of a run are ordered by time, not by step: after a restart steps go back to those of the checkpoint. A point
has only what was measured then, so a loss of the evaluation stands at the steps at which there was one. News come in order, and
each has an id that grows over restarts of the operator. A subscriber who comes back with an id that is no longer known gets one
news of kind `reset` first: load all curves anew. One who does not read fast enough is ended; it comes back with its last id.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Key = tuple[str, str]
"""Namespace and name."""

POINTS = 2000
"""Of one run."""
MARKS = 100
"""Of one run; beyond that the oldest go."""

MarkKind = Literal["checkpoint", "restart", "out-of-memory", "step"]
"""A committed checkpoint; another attempt at the same step; a rung down the ladder of memory; another step of the run."""


@dataclass(frozen=True)
class Point:
    """What was measured at one moment. Names of values are those of the records, such as `loss`, `eval_loss`,
    `learning_rate`, `grad_norm`, `epoch`, `tokens_per_second`, `samples_per_second`, `memory_bytes`,
    `gpu_memory_allocated_gb`, `gpu_utilization_percent`."""

    time: float
    """Seconds since 1970, as the pod says."""
    step: int
    """Optimizer step."""
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """What happened to the training at one moment."""

    time: float
    step: int
    kind: MarkKind
    text: str = ""
    """For people: the checkpoint's folder, the attempt's number, what was given up, the step's name."""


@dataclass(frozen=True)
class Curves:
    """Everything that is known of one run."""

    points: tuple[Point, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class News:
    """Something new about a run. `point`: a point has come; `mark`: a mark has; `reset`: load everything anew."""

    id: str
    kind: Literal["point", "mark", "reset"]
    key: Key = ("", "")
    uid: str = ""
    point: Point | None = None
    mark: Mark | None = None


class History(Protocol):
    """Curves of all runs."""

    async def points(self, key: Key, uid: str) -> Curves:
        """Of one run, also after it has ended and after a restart of the operator. Never fails: where the API server is away,
        what is in memory."""
        ...

    def subscribe(self, *, uid: str | None = None, last_event_id: str | None = None) -> AsyncIterator[News]:
        """News of one run, or of all, from now on or from after this id. Ends when the reader is too slow."""
        ...
