"""A trial as its run shows it, and what is read from that run."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainyard.api.sweep.children import trial_name
from trainyard.api.sweep.space import Assignments
from trainyard.api.sweep.status import TrialState
from trainyard.api.sweep.trainingsweep import (
    ASSIGNMENTS_ANNOTATION,
    EVALUATION_PREFIX,
    PROMOTED_ANNOTATION,
    RUNGS_ANNOTATION,
    TRIALS_LIMIT,
)
from trainyard.controller.reports.history import Point

Raw = Mapping[str, Any]
MESSAGE_LENGTH = 512


@dataclass(frozen=True)
class Trial:
    """One trial, as far as the planner cares."""

    number: int
    name: str
    assignments: Assignments = field(default_factory=dict)
    state: TrialState = "Running"
    """Running as long as the run has not ended, suspended or not."""
    suspended: bool = False
    """What its spec says."""
    at_rest: bool = False
    """Its pods are gone, because it is suspended."""
    rungs: Mapping[int, float | None] = field(default_factory=dict)
    """Value at each rung that it has reached."""
    promoted: int = 0
    """Step of the last rung that it may train beyond."""
    final: float | None = None
    message: str = ""
    gone: bool = False
    """Known from the status of a sweep that had ended when the run was deleted."""

    @property
    def over(self) -> bool:
        """Its run has ended, for ever."""
        return self.state in ("Succeeded", "Failed", "Cancelled")

    @property
    def highest(self) -> int:
        """Step of the last rung that it has reached; 0 before the first."""
        return max(self.rungs, default=0)

    @property
    def may_run(self) -> bool:
        """It has not been stopped at a rung."""
        return not self.over and self.promoted >= self.highest

    @property
    def told(self) -> bool:
        """There is something to learn from it."""
        return self.over or bool(self.rungs)

    @property
    def first_value(self) -> float | None:
        """At the first rung."""
        return self.rungs[min(self.rungs)] if self.rungs else None

    @property
    def value(self) -> float | None:
        """The last that is known: at the end, or at the last rung."""
        return self.final if self.over else self.rungs.get(self.highest)


def number_of(sweep: str, raw: Raw) -> int | None:
    """By the run's name, because a label can be written by anybody."""
    tail = str(raw["metadata"]["name"]).removeprefix(f"{sweep}-")
    number = int(tail) if tail.isdecimal() else 0
    return number if 1 <= number <= TRIALS_LIMIT and trial_name(sweep, number) == raw["metadata"]["name"] else None


def read_trial(number: int, raw: Raw, *, metric: str, reached: Mapping[int, float | None]) -> Trial:
    """The trial behind a run. `reached` are rungs that it has passed since anybody looked."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    true = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}
    state, final, message = _ending(status, true, metric)
    return Trial(
        number=number,
        name=metadata["name"],
        assignments=_mapping(annotations.get(ASSIGNMENTS_ANNOTATION)),
        state=state,
        suspended=bool((raw.get("spec") or {}).get("suspend")),
        at_rest="Suspended" in true,
        rungs={**reached, **noted_rungs(raw)},
        promoted=_whole(annotations.get(PROMOTED_ANNOTATION)),
        final=final,
        message=message,
    )


def _ending(status: Raw, true: Mapping[str, Raw], metric: str) -> tuple[TrialState, float | None, str]:
    if "Failed" in true:
        state: TrialState = "Cancelled" if status.get("state") == "Cancelled" else "Failed"
        return state, None, str(true["Failed"].get("message") or "")[:MESSAGE_LENGTH]
    if "Complete" not in true:
        return "Running", None, ""
    value = measured(status, metric)
    if value is None:
        known = ", ".join(sorted(_names(status))) or "none"
        told = f"the run has succeeded and has no {metric}, which spec.objective.metric asks for; it has {known}"
        return "Failed", None, told[:MESSAGE_LENGTH]
    return "Succeeded", value, ""


def measured(status: Raw, metric: str) -> float | None:
    """The newest value of a metric in a run's status; None where there is none that could be compared."""
    name = metric.removeprefix(EVALUATION_PREFIX)
    place = "evaluation" if metric.startswith(EVALUATION_PREFIX) else "trainerStatus"
    for entry in (status.get(place) or {}).get("metrics") or ():
        if entry.get("name") == name:
            return _finite(entry.get("value"))
    return None


def _names(status: Raw) -> Iterable[str]:
    for place, prefix in (("trainerStatus", ""), ("evaluation", EVALUATION_PREFIX)):
        for entry in (status.get(place) or {}).get("metrics") or ():
            yield f"{prefix}{entry.get('name')}"


def noted_rungs(raw: Raw) -> dict[int, float | None]:
    """The rungs that have been written down on the run."""
    noted = _mapping((raw["metadata"].get("annotations") or {}).get(RUNGS_ANNOTATION))
    return {int(step): _finite(value) for step, value in noted.items() if _is_step(step)}


def passed(raw: Raw, rungs: Iterable[int]) -> list[int]:
    """Rungs that the run has passed and that nobody has written down.

    One step beyond, because what is measured at a step is reported after the step itself.
    """
    status, noted = raw.get("status") or {}, noted_rungs(raw)
    step = (status.get("trainerStatus") or {}).get("step") or 0
    return [rung for rung in rungs if rung not in noted and step > rung]


def value_at_rung(points: Iterable[Point], metric: str, rung: int) -> float | None:
    """The newest value up to the rung's step, in the order of time: after a restart, steps are done again."""
    return next((p.values[metric] for p in reversed([*points]) if p.step <= rung and _is_told(p, metric)), None)


def _is_told(point: Point, metric: str) -> bool:
    return math.isfinite(point.values.get(metric, math.nan))


def _mapping(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(text: Any) -> int:
    return int(text) if isinstance(text, str) and _is_step(text) else 0


def _is_step(text: str) -> bool:
    return text.isdecimal() and len(text) <= 18
