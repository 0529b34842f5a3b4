"""`status` of a TrainingSweep, for people and programs. It is computed anew from the trials' runs at each look."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainyard.api.run.status import Condition, StatusModel
from trainyard.api.sweep.trainingsweep import TRIALS_LIMIT

ASSIGNMENT_LENGTH = 128


class SweepState(StrEnum):
    """`status.state`: one word for people."""

    RUNNING = "Running"
    WAITING = "Waiting"
    """A trial is due and the cluster does not take its run just now."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INVALID = "Invalid"


class SweepReason(StrEnum):
    """Reasons of conditions and Events. Stable: scripts and alerts may match on them."""

    RUNNING = "Running"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    COMPLETED = "AllTrialsEnded"
    GOAL_REACHED = "GoalReached"
    INVALID_SPEC = "InvalidSpec"
    TOO_MANY_FAILED = "TooManyFailedTrials"
    NO_RESULT = "NoResult"
    """All trials have ended and none has a value."""
    REFUSED = "RunRefused"
    """The API server does not take a trial's run."""
    TRIAL_CREATED = "TrialCreated"
    TRIAL_STOPPED = "TrialStopped"
    TRIAL_PROMOTED = "TrialPromoted"
    TRIAL_SUCCEEDED = "TrialSucceeded"
    TRIAL_FAILED = "TrialFailed"
    NEW_BEST = "NewBest"


TrialState = Literal["Running", "Stopped", "Succeeded", "Failed", "Cancelled"]


class TrialStatus(StatusModel):
    """One trial."""

    number: int = Field(ge=1, description="Counts from 1.")
    run: str = Field(max_length=63, description="Name of its TrainingRun.")
    state: TrialState = Field(
        description="Running: under way, or waiting to be. Stopped: suspended by earlyStopping, and may go on yet. Failed: the run "
        "has failed, or has no value."
    )
    value: str | None = Field(
        None, max_length=64, description="Its objective: at the end, or at the last rung that it has reached."
    )
    rung: int | None = Field(None, ge=0, description="Step of the last rung that it has reached.")
    assignments: dict[str, str] | None = Field(None, description="Its values of the parameters.")
    message: str | None = Field(None, max_length=256, description="Why it has failed.")
    gone: bool | None = Field(None, description="Its run was deleted after the sweep had ended.")


class TrialCounts(StatusModel):
    """How many trials there are."""

    total: int = Field(0, ge=0, description="That there are to be.")
    running: int = Field(0, ge=0, description="Under way.")
    stopped: int = Field(0, ge=0, description="Stopped by earlyStopping.")
    succeeded: int = Field(0, ge=0, description="Ended with a value.")
    failed: int = Field(0, ge=0, description="Failed, or ended without a value.")
    cancelled: int = Field(0, ge=0, description="Cancelled by somebody.")


class BestTrial(StatusModel):
    """The best trial that has trained to its end."""

    number: int = Field(ge=1, description="Which trial.")
    run: str = Field(max_length=63, description="Name of its TrainingRun.")
    value: str = Field(max_length=64, description="Its objective.")
    assignments: dict[str, str] | None = Field(None, description="Its values of the parameters.")


class TrainingSweepStatus(StatusModel):
    """Everything the operator writes."""

    observed_generation: int | None = Field(None, description="Generation of the spec that this status speaks of.")
    state: str | None = Field(None, max_length=63, description="One word for people; programs read the conditions.")
    message: str | None = Field(None, max_length=32768, description="One line: what happens, or what is in the way.")
    conditions: list[Condition] | None = Field(
        None,
        max_length=16,
        description="Ready, Reconciling, Stalled, Complete, Failed, Suspended.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    completion_time: str | None = Field(
        None, description="When the sweep ended.", json_schema_extra={"format": "date-time"}
    )
    best: BestTrial | None = Field(None, description="The best trial that has trained to its end.")
    trial_counts: TrialCounts | None = Field(None, description="How many trials there are.")
    trials: list[TrialStatus] | None = Field(
        None,
        max_length=TRIALS_LIMIT,
        description="All trials.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    )
    summary: str | None = Field(None, max_length=64, description="The printed column TRIALS: done and in all.")
