"""The status of a sweep, made of its trials, and the Events that the difference of two of them is.

To kstatus a sweep is like a run: Reconciling until it has ended, Ready once it has a best trial, Stalled where it has failed or its spec
is wrong.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.api.addresses import told as harmless
from trainyard.api.conditions import ConditionType
from trainyard.api.run.status import Condition
from trainyard.api.sweep.space import Assignments
from trainyard.api.sweep.status import (
    ASSIGNMENT_LENGTH,
    BestTrial,
    SweepReason,
    SweepState,
    TrainingSweepStatus,
    TrialCounts,
    TrialState,
    TrialStatus,
)
from trainyard.api.sweep.trainingsweep import Parameter
from trainyard.api.texts import one_line
from trainyard.controller.clock import rfc3339
from trainyard.controller.loop.subjects import Notice
from trainyard.controller.sweeps.observed import Observed
from trainyard.controller.sweeps.trial import Trial

MESSAGE_LENGTH = 30000
VALUES_SIZE = 500_000
"""Characters of all trials' values; where there are more, they stand on the runs alone, and an object can be stored."""


@dataclass(frozen=True)
class Standing:
    """How the sweep stands now."""

    state: SweepState
    reason: SweepReason
    message: str


def summarise(seen: Observed, trials: Mapping[int, Trial], best: Trial | None) -> TrainingSweepStatus:
    """The trials, and what follows from them."""
    listed = [_entry(trials[number]) for number in sorted(trials)]
    if sum(len(name) + len(text) for entry in listed for name, text in (entry.assignments or {}).items()) > VALUES_SIZE:
        listed = [entry.model_copy(update={"assignments": None}) for entry in listed]
    states = [entry.state for entry in listed]
    total = max(seen.sweep.total, len(listed)) if not seen.faults else len(listed)
    counts = TrialCounts(
        total=total,
        running=states.count("Running"),
        stopped=states.count("Stopped"),
        succeeded=states.count("Succeeded"),
        failed=states.count("Failed"),
        cancelled=states.count("Cancelled"),
    )
    found = None
    if best is not None and best.final is not None:
        found = BestTrial(number=best.number, run=best.name, value=_number(best.final), assignments=_texts(best))
    return seen.status.model_copy(
        update={
            "trials": listed or None,
            "trial_counts": counts,
            "best": found,
            "summary": f"{len(listed) - counts.running}/{total}",
        }
    )


def _entry(trial: Trial) -> TrialStatus:
    state: TrialState = "Stopped" if trial.state == "Running" and not trial.may_run else trial.state
    return TrialStatus(
        number=trial.number,
        run=trial.name,
        state=state,
        value=None if trial.value is None else _number(trial.value),
        rung=trial.highest or None,
        assignments=_texts(trial) or None,
        message=one_line(harmless(trial.message), limit=256) or None,
        gone=trial.gone or None,
    )


def _texts(trial: Trial) -> dict[str, str]:
    return {name: _text(value) for name, value in trial.assignments.items()}


def read_texts(parameters: Sequence[Parameter], texts: Mapping[str, str]) -> Assignments:
    """The values behind the texts of a status."""
    found: Assignments = {}
    for parameter in parameters:
        text = texts.get(parameter.name)
        if text is None:
            continue
        if parameter.choice is None:
            with suppress(ValueError):  # somebody has written something else on the run
                found[parameter.name] = json.loads(text)
        else:
            found.update((parameter.name, value) for value in parameter.choice.values if _text(value) == text)
    return found


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:ASSIGNMENT_LENGTH]


def _number(value: float) -> str:
    return f"{value:.6g}"


def stand(
    status: TrainingSweepStatus, standing: Standing, *, suspended: bool, generation: int, now: datetime
) -> TrainingSweepStatus:
    """The status with the standing written into it."""
    message = one_line(harmless(standing.message), limit=MESSAGE_LENGTH)
    before = {c.type: c for c in status.conditions or ()}
    state = standing.state
    ended = state in (SweepState.SUCCEEDED, SweepState.FAILED)
    paused = suspended and not ended and state is not SweepState.INVALID
    wanted: list[tuple[ConditionType, bool]] = [(ConditionType.READY, state is SweepState.SUCCEEDED)]
    if state in (SweepState.FAILED, SweepState.INVALID):
        wanted.append((ConditionType.STALLED, True))
    elif not ended and not paused:
        wanted.append((ConditionType.RECONCILING, True))
    if ended:
        wanted.append((ConditionType.COMPLETE if state is SweepState.SUCCEEDED else ConditionType.FAILED, True))
    if paused or ConditionType.SUSPENDED in before:
        wanted.append((ConditionType.SUSPENDED, paused))
    conditions = []
    for kind, value in wanted:
        text, old = ("True" if value else "False"), before.get(kind)
        resumed = kind is ConditionType.SUSPENDED and not value
        conditions.append(
            Condition(
                type=kind.value,
                status="True" if value else "False",
                reason=(SweepReason.RESUMED if resumed else standing.reason).value,
                message="the sweep goes on" if resumed else message,
                last_transition_time=old.last_transition_time if old and old.status == text else rfc3339(now),
                observed_generation=generation,
            )
        )
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "state": state.value,
        "message": message,
        "conditions": conditions,
        "completion_time": (status.completion_time or rfc3339(now)) if ended else None,
    }
    return status.model_copy(update=changes)


def notices(old: TrainingSweepStatus, new: TrainingSweepStatus) -> Iterator[Notice]:
    """The Events of a change."""
    before = {entry.number: entry for entry in old.trials or ()}
    for entry in new.trials or ():
        yield from _of_trial(before.get(entry.number), entry)
    if new.best is not None and (old.best is None or old.best.value != new.best.value):
        yield Notice("Normal", SweepReason.NEW_BEST, f"{new.best.run} is the best so far: {new.best.value}")
    if new.state != old.state or (new.state == SweepState.INVALID.value and new.message != old.message):
        yield from _of_sweep(old, new)


def _of_trial(old: TrialStatus | None, new: TrialStatus) -> Iterator[Notice]:
    if old is None:
        values = ", ".join(f"{name} {value}" for name, value in (new.assignments or {}).items())
        if new.state == "Running":
            yield Notice("Normal", SweepReason.TRIAL_CREATED, f"made {new.run}: {values}"[:1000])
    was = old.state if old is not None else "Running"
    if was == new.state:
        return
    if new.state == "Stopped":
        told = f"{new.run} stops at step {new.rung} with {new.value or 'no value'}, unless it turns out among the best"
        yield Notice("Normal", SweepReason.TRIAL_STOPPED, told)
    elif new.state == "Running":
        yield Notice("Normal", SweepReason.TRIAL_PROMOTED, f"{new.run} goes on from step {new.rung}")
    elif new.state == "Succeeded":
        yield Notice("Normal", SweepReason.TRIAL_SUCCEEDED, f"{new.run} has ended with {new.value}")
    else:
        kind = "Warning" if new.state == "Failed" else "Normal"
        told = f"{new.run} has ended as {new.state}: {new.message or 'see the run'}"
        yield Notice(kind, SweepReason.TRIAL_FAILED, told[:1000])


def _of_sweep(old: TrainingSweepStatus, new: TrainingSweepStatus) -> Iterator[Notice]:
    ready = next((c for c in new.conditions or () if c.type == ConditionType.READY.value), None)
    if ready is None or (new.state == SweepState.RUNNING.value and old.state is None):
        return
    bad = new.state in (SweepState.FAILED.value, SweepState.INVALID.value, SweepState.WAITING.value)
    yield Notice("Warning" if bad else "Normal", SweepReason(ready.reason), (new.message or "")[:1000])
