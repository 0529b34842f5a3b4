"""`status` of a TrainingSchedule: what has been started, what comes next, and what every trigger last saw.

It is the operator's only memory. `firing` is written before the first run of a start is made; so, whatever moment the
operator ends at, the next look goes on with the same start, under the same names.
"""

from enum import StrEnum

from pydantic import Field

from trainyard.api.run.status import Condition, StatusModel

ACTIVE_KEPT = 100
RUN_NOW = "RunNow"
CLOCK = "Schedule"


class ScheduleState(StrEnum):
    """`status.state`: one word for people."""

    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    WAITING = "Waiting"
    """A start is due and something is in its way."""
    SUSPENDED = "Suspended"
    INVALID = "Invalid"


class ScheduleReason(StrEnum):
    """Reasons of conditions and Events. Stable: scripts and alerts may match on them."""

    SCHEDULED = "Scheduled"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_TIME_ZONE = "UnknownTimeZone"
    RUN_CREATED = "RunCreated"
    RUN_SUCCEEDED = "RunSucceeded"
    RUN_FAILED = "RunFailed"
    REPLACED = "Replaced"
    MISSED = "MissedSchedule"
    SKIPPED = "SkippedStart"
    REFUSED = "RunRefused"
    """The API server does not take the run that the template makes."""
    TRIGGER_FIRED = "TriggerFired"
    TRIGGER_UNREACHABLE = "TriggerUnreachable"
    INVALID_RUN_NOW = "InvalidRunNow"


def _time(description: str) -> str | None:
    field: str | None = Field(None, description=description, json_schema_extra={"format": "date-time"})
    return field


class ActiveRun(StatusModel):
    """A run that is under way."""

    name: str = Field(max_length=63, description="Name of the TrainingRun.")
    uid: str | None = Field(None, max_length=64, description="Its uid.")
    variant: str | None = Field(None, max_length=63, description="Variant that it was made of.")


class LastRun(StatusModel):
    """The newest run."""

    name: str = Field(max_length=63, description="Name of the TrainingRun.")
    started_by: str = Field(max_length=63, description="Schedule, RunNow, or the trigger's name.")
    state: str | None = Field(None, max_length=63, description="How it stands.")


class Firing(StatusModel):
    """A start that has not made all of its runs yet."""

    time: str = Field(description="The slot, or the moment of the trigger.", json_schema_extra={"format": "date-time"})
    window_start: str | None = _time("The start before this one.")
    started_by: str = Field(max_length=63, description="Schedule, RunNow, or the trigger's name.")
    force: bool | None = Field(None, description="Whether skipIfUnchanged is ignored.")
    overrides: str | None = Field(None, max_length=16384, description="JSON merge patch over template.spec.")
    variants: list[str] | None = Field(
        None, max_length=32, description="The variants that were asked for; absent: all."
    )
    next_variant: int = Field(0, ge=0, description="Index, in these, of the variant whose run comes next.")


class RunCounts(StatusModel):
    """Everything that ever happened under this schedule."""

    created: int = Field(0, ge=0, description="Runs that were made.")
    succeeded: int = Field(0, ge=0, description="Runs that succeeded.")
    failed: int = Field(0, ge=0, description="Runs that failed or were cancelled.")
    missed: int = Field(0, ge=0, description="Slots that passed while nobody could start them.")
    skipped: int = Field(
        0, ge=0, description="Starts that another run, minIntervalSeconds or the API server did not let through."
    )


class Success(StatusModel):
    """The last success of a variant, for skipIfUnchanged."""

    variant: str = Field(max_length=63, description="Name of the variant; empty without variants.")
    run: str = Field(max_length=63, description="Name of the run.")
    completion_time: str = Field(description="When it ended.", json_schema_extra={"format": "date-time"})
    template_digest: str | None = Field(None, max_length=128, description="Digest of the spec it was made from.")
    dataset_digest: str | None = Field(None, max_length=128, description="Digest of the records it was trained on.")


class TriggerStatus(StatusModel):
    """What a trigger last saw."""

    name: str = Field(max_length=63, description="Name of the trigger.")
    spec_digest: str | None = Field(None, max_length=64, description="Which trigger this was; another one begins anew.")
    last_check_time: str | None = _time("When the source last answered.")
    last_fire_time: str | None = _time("When it last started a run.")
    observed: str | None = Field(None, max_length=512, description="What was there at the last answer.")
    baseline: str | None = Field(None, max_length=8192, description="What was there at the last start.")
    holds_since: str | None = _time("Since when the comparison has held.")
    pending: bool | None = Field(None, description="It has something to start a run for.")
    message: str | None = Field(None, max_length=1024, description="What it saw, or why it saw nothing.")
    failing: bool | None = Field(None, description="The source could not be read at the last look.")


class TrainingScheduleStatus(StatusModel):
    """Everything the operator writes."""

    observed_generation: int | None = Field(None, description="Generation of the spec that this status speaks of.")
    state: str | None = Field(None, max_length=63, description="One word for people; programs read the conditions.")
    message: str | None = Field(None, max_length=32768, description="One line: what comes next, or what is in the way.")
    conditions: list[Condition] | None = Field(
        None,
        max_length=16,
        description="Ready, Reconciling, Stalled, Suspended.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    active: list[ActiveRun] | None = Field(None, max_length=ACTIVE_KEPT * 4, description="Runs that are under way.")
    last_schedule_time: str | None = _time("The newest slot of the clock that made a run.")
    next_schedule_time: str | None = _time("The next slot of the clock.")
    last_successful_time: str | None = _time("When a run last succeeded.")
    last_run: LastRun | None = Field(None, description="The newest run.")
    runs: RunCounts | None = Field(None, description="Counts since the schedule was made.")
    triggers: list[TriggerStatus] | None = Field(
        None,
        max_length=16,
        description="What the triggers last saw.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    handled_until: str | None = _time("Slots up to this moment have been dealt with.")
    clock_digest: str | None = Field(
        None, max_length=64, description="Which clock that was; after an edit it begins anew."
    )
    interval_base: str | None = _time("From when intervalSeconds counts.")
    last_start_time: str | None = _time("When clock or trigger last made a start.")
    last_moment: str | None = _time("What the newest start by a trigger or a person is named after.")
    firing: Firing | None = Field(None, description="A start that is under way.")
    last_run_now: str | None = Field(None, max_length=1024, description="The run-now value that was last carried out.")
    successes: list[Success] | None = Field(None, max_length=64, description="Last success of each variant.")
    summary: str | None = Field(None, max_length=256, description="The printed column SCHEDULE.")
