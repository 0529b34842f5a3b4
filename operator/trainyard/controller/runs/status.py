"""Conditions: one standing of the run, told in the three vocabularies that read it.

kstatus (Flux, Argo CD) reads Ready, Reconciling and Stalled; `kubectl wait` and scripts read Complete, Failed and
Suspended as on a Job; people read `state` and `message`. All come from one `Standing`, so that they cannot disagree.
`GatesPassed` is beside them: it is about the result, and comes from what the evaluation has told.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from trainyard.api.addresses import told
from trainyard.api.conditions import ConditionType, Reason, State
from trainyard.api.run.status import Condition, TrainingRunStatus
from trainyard.api.texts import one_line
from trainyard.controller.clock import rfc3339
from trainyard.controller.runs.told import limit_of


@dataclass(frozen=True)
class Standing:
    """How the run stands now."""

    state: State
    reason: Reason
    message: str
    stalled: bool = False
    """Nothing will change until somebody acts: the spec is wrong, or something it names is missing."""

    @property
    def finished(self) -> bool:
        """Terminal, for ever."""
        return self.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def is_finished(status: TrainingRunStatus) -> bool:
    """Terminal is terminal: decided by the conditions alone."""
    return any(
        c.type in (ConditionType.COMPLETE, ConditionType.FAILED) and c.status == "True" for c in status.conditions or ()
    )


def stand(status: TrainingRunStatus, standing: Standing, *, generation: int, now: datetime) -> TrainingRunStatus:
    """The status with the standing written into it, the message on one line and without anything secret in an address."""
    message = one_line(told(standing.message), limit=limit_of(Condition, "message"))
    if message != standing.message:
        standing = replace(standing, message=message)
    return status.model_copy(
        update={
            "observed_generation": generation,
            "state": standing.state.value,
            "message": standing.message,
            "conditions": _conditions(status, standing, generation=generation, now=now),
        }
    )


def _conditions(status: TrainingRunStatus, standing: Standing, *, generation: int, now: datetime) -> list[Condition]:
    succeeded, failed = standing.state is State.SUCCEEDED, standing.state in (State.FAILED, State.CANCELLED)
    suspended = standing.state is State.SUSPENDED
    before = {c.type: c for c in status.conditions or ()}
    wanted: dict[ConditionType, bool] = {ConditionType.READY: succeeded}
    # Abnormal-true: kstatus takes their mere presence with another value for noise.
    if standing.stalled or failed:
        wanted[ConditionType.STALLED] = True
    elif not standing.finished and not suspended:
        wanted[ConditionType.RECONCILING] = True
    if succeeded:
        wanted[ConditionType.COMPLETE] = True
    if failed:
        wanted[ConditionType.FAILED] = True
    if suspended or ConditionType.SUSPENDED in before:
        wanted[ConditionType.SUSPENDED] = suspended

    result = []
    for kind, value in wanted.items():
        text = "True" if value else "False"
        old = before.get(kind)
        resumed = kind is ConditionType.SUSPENDED and not value
        reason, message = (Reason.RESUMED, "the run goes on") if resumed else (standing.reason, standing.message)
        said = (text, reason.value, message, generation)
        if old is not None and (old.status, old.reason, old.message, old.observed_generation) == said:
            result.append(old)
            continue
        result.append(
            Condition(
                type=kind.value,
                status="True" if value else "False",
                reason=reason.value,
                message=message,
                last_transition_time=old.last_transition_time
                if old is not None and old.status == text
                else rfc3339(now),
                observed_generation=generation,
            )
        )
    return result + _judgement(status, before.get(ConditionType.GATES_PASSED), generation=generation, now=now)


def _judgement(status: TrainingRunStatus, old: Condition | None, *, generation: int, now: datetime) -> list[Condition]:
    """GatesPassed, once the gates have been judged; it says nothing of the run, which did what it was asked."""
    verdict = status.evaluation.verdict if status.evaluation is not None else None
    if status.evaluation is None or verdict is None:
        return [old] if old is not None else []
    text: Literal["True", "False"] = "True" if verdict == "Promote" else "False"
    message = status.evaluation.message or f"the verdict is {verdict}"
    if old is not None and (old.status, old.reason, old.message) == (text, verdict, message):
        return [old]
    since = old.last_transition_time if old is not None and old.status == text else rfc3339(now)
    return [
        Condition(
            type=ConditionType.GATES_PASSED.value,
            status=text,
            reason=Reason(verdict).value,
            message=message,
            last_transition_time=since,
            observed_generation=generation,
        )
    ]
