"""`status` of a TrainingRun: what the operator has seen, for people, for GitOps tools and for its own next look.

Floats are strings or integers where they could come in a form that JSON and etcd disagree on (a loss may be NaN).
`summary` holds the printed columns: computed once here instead of by JSONPath, which cannot choose between conditions.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainyard.api.base import ApiModel

ATTEMPTS_KEPT = 10
"""How many attempts of a step stay in the status; older ones are only counted."""


ALERTS_KEPT = 128
"""Entries of status.alerts: more than all alerts of a run to all of its receivers."""


class StatusModel(ApiModel):
    """Base of what the operator wrote itself: a field of a newer version is passed over, not refused."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusModel):
    """A metav1.Condition."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, as one word that programs may match on.")
    message: str = Field("", max_length=32768, description="Why, for people.")
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(0, description="Generation of the spec that this speaks of.")


class Metric(StatusModel):
    """One value. A string, because it may be nan."""

    name: str = Field(max_length=253, description="Name of the metric.")
    value: str = Field(max_length=64, description="Its newest value.")


class TrainerStatus(StatusModel):
    """Live progress; field names as in Kubeflow's TrainJob."""

    progress_percentage: int | None = Field(
        None, ge=0, le=100, description="How much of the training is done, over all phases."
    )
    estimated_remaining_seconds: int | None = Field(
        None, ge=0, description="Seconds left at the present speed; with phases, of the present one."
    )
    step: int | None = Field(None, ge=0, description="Optimizer steps done; with phases, in the present one.")
    total_steps: int | None = Field(None, ge=0, description="Optimizer steps in all; with phases, of the present one.")
    epoch: str | None = Field(None, max_length=32, description="Passes over the training data.")
    phase: str | None = Field(None, max_length=32, description="What the pod is doing now.")
    metrics: list[Metric] | None = Field(
        None,
        max_length=64,
        description="Newest metrics.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    last_updated_time: str | None = Field(
        None, description="When the pod last reported.", json_schema_extra={"format": "date-time"}
    )


class CheckpointStatus(StatusModel):
    """The newest committed checkpoint."""

    step: int = Field(ge=0, description="Optimizer step it was taken at.")
    path: str = Field("", max_length=1024, description="Path on the checkpoint volume.")
    time: str | None = Field(None, description="When it was committed.", json_schema_extra={"format": "date-time"})


class Attempt(StatusModel):
    """One Job of a step."""

    number: int = Field(ge=1, description="Counts from 1.")
    state: Literal["Running", "Succeeded", "Failed", "Stopped"] = Field(description="How it stands.")
    reason: str | None = Field(None, max_length=128, description="How it ended.")
    counted: bool | None = Field(None, description="Whether it counts against backoffLimit.")
    exit_code: int | None = Field(None, description="Exit code of the container.")
    message: str | None = Field(None, max_length=4096, description="What went wrong and what to do.")
    start_time: str | None = Field(
        None, description="When its Job was made.", json_schema_extra={"format": "date-time"}
    )
    pod_start_time: str | None = Field(
        None, description="When its container began to run.", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(None, description="When it ended.", json_schema_extra={"format": "date-time"})
    node: str | None = Field(None, max_length=253, description="Node it ran on.")
    gpus: int | None = Field(None, ge=0, description="GPUs that its pods hold together; absent without any.")
    first_step: int | None = Field(None, description="Optimizer step it went on from.")
    last_step: int | None = Field(None, description="Last optimizer step it reported.")
    last_log_lines: list[str] | None = Field(None, max_length=20, description="The end of its log, if it failed.")


class StepStatus(StatusModel):
    """One step of the run."""

    name: str = Field(
        max_length=63, description="prepare, train (train-<phase> for each phase), evaluate, export-<name>, validate."
    )
    state: Literal["Waiting", "Running", "Succeeded", "Failed", "Skipped"] = Field(description="How it stands.")
    job: str | None = Field(None, max_length=63, description="Name of its newest Job.")
    attempts: list[Attempt] | None = Field(None, max_length=ATTEMPTS_KEPT, description="The newest attempts.")
    earlier_seconds: int | None = Field(
        None, ge=0, description="Seconds for which pods of attempts ran that are no longer among the newest."
    )
    earlier_gpu_seconds: int | None = Field(
        None, ge=0, description="GPU seconds of attempts that are no longer among the newest."
    )
    total_steps: int | None = Field(
        None, ge=0, description="Of a phase: its optimizer steps in all, once they are known."
    )
    dataset_digest: str | None = Field(None, max_length=128, description="Of a phase: sha256 over its records.")


class DatasetSourceStatus(StatusModel):
    """One entry of spec.datasets."""

    name: str = Field(max_length=63, description="Its name.")
    records: int = Field(description="How many of its records are used.")
    key: str | None = Field(
        None, max_length=253, description="Built by a trace store: its key there, the dataset's name and version."
    )
    build_id: str | None = Field(None, max_length=253, description="Built by a trace store: which building.")
    trace_count: int | None = Field(None, ge=0, description="Built by a trace store: how many traces were chosen.")
    manifest_path: str | None = Field(
        None, max_length=1024, description="Built by a trace store: where its manifest lies, as the store says."
    )


class DatasetStatus(StatusModel):
    """What the prepare step made."""

    digest: str | None = Field(None, max_length=128, description="sha256 over all records.")
    records: int | None = Field(None, description="Number of records.")
    tokens: int | None = Field(None, description="Number of training tokens.")
    splits: dict[str, int] | None = Field(None, description="Records of each split.")
    sources: list[DatasetSourceStatus] | None = Field(
        None,
        max_length=32,
        description="Records of each entry of spec.datasets.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


Verdict = Literal["Promote", "Reject", "Inconclusive"]


class GateStatus(StatusModel):
    """What became of one entry of spec.evaluation.gates. Numbers are strings, because they may be nan."""

    metric: str = Field(max_length=160, description="The metric, by its own name.")
    verdict: Verdict = Field(
        description="Promote: good enough. Reject: surely not. Inconclusive: too few records to tell."
    )
    value: str | None = Field(None, max_length=64, description="The metric of the result.")
    reference: str | None = Field(
        None, max_length=64, description="That of what it was compared with, on the same records."
    )
    gain: str | None = Field(None, max_length=64, description="How much better; below 0 where it is worse.")
    interval: list[Annotated[str, Field(max_length=64)]] | None = Field(
        None, max_length=2, description="Of the gain (without one, of the value): from and to."
    )
    n: int | None = Field(None, ge=0, description="Records that were compared.")
    confidence: str | None = Field(None, max_length=16, description="How sure the interval is.")
    message: str | None = Field(None, max_length=512, description="The verdict in words.")


class EvaluationStatus(StatusModel):
    """Result of the evaluation."""

    verdict: Verdict | None = Field(
        None, description="Of all gates together: the worst of theirs. Absent where there is none."
    )
    gates: list[GateStatus] | None = Field(
        None,
        max_length=16,
        description="The gates.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )
    compared_with: str | None = Field(None, max_length=1024, description="The champion, as it was found.")
    metrics: list[Metric] | None = Field(None, max_length=64, description="loss, perplexity and so on.")
    baseline: list[Metric] | None = Field(
        None, max_length=64, description="The same of the model before training, on the same records."
    )
    passed: bool | None = Field(
        None, description="Whether the result is as good as the spec asks for; absent if it asks nothing."
    )
    message: str | None = Field(None, max_length=1024, description="Why it passed or not.")


class ModelStatus(StatusModel):
    """What the result is called in exports."""

    name: str = Field(max_length=512, description="spec.versioning.name, filled in.")
    version: str = Field(max_length=512, description="spec.versioning.version, filled in.")


class ExportStatus(StatusModel):
    """One entry of spec.exports."""

    name: str = Field(max_length=63, description="Its name.")
    target: str = Field(max_length=63, description="Its target.")
    state: Literal["Waiting", "Running", "Succeeded", "Failed", "Skipped"] = Field(description="How it stands.")
    uri: str | None = Field(None, max_length=1024, description="Where the result is.")
    version: str | None = Field(None, max_length=128, description="What the target calls it.")
    digest: str | None = Field(None, max_length=128, description="Digest of what is there.")
    attempts: int | None = Field(None, ge=0, description="How often it was tried.")
    message: str | None = Field(None, max_length=4096, description="Why it failed, waits or was skipped.")


PROMOTIONS_KEPT = 16


class PromotionStatus(StatusModel):
    """What became the newest result for everybody, or ceased to be it."""

    kind: Literal["Promoted", "RolledBack"] = Field(
        description="Promoted: this run's. RolledBack: the one before it again."
    )
    version: str = Field(max_length=512, description="The version that was promoted, or taken back.")
    time: str = Field(description="When.", json_schema_extra={"format": "date-time"})
    exports: list[str] = Field(
        max_length=17, description="Where.", json_schema_extra={"items": {"type": "string", "maxLength": 63}}
    )
    gain: str | None = Field(None, max_length=64, description="Of the first gate: how much better it is.")
    interval: str | None = Field(None, max_length=130, description="Of the gain: from and to.")
    reason: str | None = Field(
        None, max_length=1024, description="Why: what the evaluation has said, or the value of the annotation."
    )


class RollbackStatus(StatusModel):
    """The newest request to take the promotion back."""

    token: str = Field(max_length=1024, description="Value of the annotation trainyard.dev/rollback.")
    state: Literal["Running", "Succeeded", "Failed"] = Field(description="How it stands.")
    step: str | None = Field(None, max_length=63, description="The step that does it.")
    message: str | None = Field(None, max_length=4096, description="Why it failed.")


class Failure(StatusModel):
    """Why the run failed."""

    reason: str = Field(max_length=128, description="As in the condition Failed.")
    step: str | None = Field(None, max_length=63, description="The step that failed.")
    message: str = Field(max_length=8192, description="What went wrong.")
    hint: str | None = Field(None, max_length=4096, description="What to do about it.")


class CostStatus(StatusModel):
    """What the run's GPUs have cost, reckoned from the attempts. Numbers are strings of at most four decimals."""

    gpu_hours: str = Field(max_length=32, description="Hours for which its pods have held GPUs, times their number.")
    hourly_rate: str | None = Field(
        None, max_length=32, description="Price of a GPU hour that the sums are reckoned with."
    )
    currency: str | None = Field(None, max_length=3, description="What they are in.")
    actual: str | None = Field(None, max_length=32, description="What the hours so far cost.")
    saved: str | None = Field(
        None, max_length=32, description="By how much less than spec.cost.regularHourlyRate these hours cost."
    )
    estimated: str | None = Field(
        None,
        max_length=32,
        description="What they will cost in the end: at the training's present speed, before that is known by "
        "activeDeadlineSeconds. Absent where neither tells, and once the run has ended.",
    )


class AlertStatus(StatusModel):
    """One alert to one receiver."""

    name: str = Field(max_length=128, description="<alert>/<receiver>; the alert is told once under this name.")
    state: Literal["Told", "Refused", "GivenUp"] = Field(
        description="Told: the receiver has taken it. Refused: it never will. GivenUp: it was away for too long."
    )
    time: str | None = Field(None, description="When.", json_schema_extra={"format": "date-time"})
    message: str | None = Field(None, max_length=1024, description="Why it was not told, and what to do.")


class Summary(StatusModel):
    """The printed columns."""

    method: str | None = Field(None, max_length=63, description="Training method, or Script.")
    model: str | None = Field(None, max_length=253, description="Short name of the model.")
    progress: str | None = Field(None, max_length=16, description="For example 42%.")
    step: str | None = Field(None, max_length=64, description="For example 420/1000.")
    loss: str | None = Field(None, max_length=32, description="Newest loss.")
    eta: str | None = Field(None, max_length=32, description="For example 3m20s.")
    node: str | None = Field(None, max_length=253, description="Node of the newest pod.")
    step_name: str | None = Field(None, max_length=63, description="The step that is under way.")


class TrainingRunStatus(StatusModel):
    """Everything the operator writes."""

    observed_generation: int | None = Field(None, description="Generation of the spec that this status speaks of.")
    state: str | None = Field(None, max_length=63, description="One word for people; programs read the conditions.")
    message: str | None = Field(None, max_length=32768, description="One line: what happens, or why it waits.")
    conditions: list[Condition] | None = Field(
        None,
        max_length=16,
        description="Ready, Reconciling, Stalled, Complete, Failed, Suspended, GatesPassed.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    start_time: str | None = Field(
        None, description="When the first Job was made.", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        None, description="When the run ended.", json_schema_extra={"format": "date-time"}
    )
    active_seconds: int | None = Field(
        None, ge=0, description="Seconds the run has been active up to the last suspension, for activeDeadlineSeconds."
    )
    active_since: str | None = Field(
        None, description="Since when it is active again.", json_schema_extra={"format": "date-time"}
    )
    current_step: str | None = Field(None, max_length=63, description="The step that is under way.")
    current_phase: str | None = Field(None, max_length=63, description="The phase that is being trained.")
    trainer_status: TrainerStatus | None = Field(None, description="Live progress.")
    steps: list[StepStatus] | None = Field(
        None,
        max_length=48,
        description="The steps and their attempts.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    restarts: int | None = Field(None, ge=0, description="Attempts beyond the first of each step.")
    restarts_count_towards_max: int | None = Field(None, ge=0, description="Those that count against backoffLimit.")
    disruptions: int | None = Field(
        None,
        ge=0,
        description="How often a pod was taken away from the run (reclaimed spot node, eviction, preemption, drain): told apart from "
        "failures, and never counted against backoffLimit.",
    )
    checkpoint: CheckpointStatus | None = Field(None, description="The newest committed checkpoint.")
    dataset: DatasetStatus | None = Field(None, description="What it is trained on.")
    evaluation: EvaluationStatus | None = Field(None, description="Result of the evaluation.")
    model: ModelStatus | None = Field(None, description="What the result is called.")
    exports: list[ExportStatus] | None = Field(
        None,
        max_length=17,
        description="Where the result has been sent.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    promotions: list[PromotionStatus] | None = Field(
        None, max_length=PROMOTIONS_KEPT, description="The newest promotions and rollbacks of this run's result."
    )
    rollback: RollbackStatus | None = Field(None, description="The newest request to take a promotion back.")
    effective: dict[str, str] | None = Field(None, description="What really ran: device, precision, batch, threads.")
    provenance: dict[str, str] | None = Field(None, description="Versions and revisions that made the result.")
    failure: Failure | None = Field(None, description="Why the run failed.")
    cost: CostStatus | None = Field(None, description="What its GPUs have cost; absent of a run that asks for none.")
    mlflow_run_id: str | None = Field(None, max_length=64, description="The MLflow run of spec.tracking.mlflow.")
    alerts: list[AlertStatus] | None = Field(
        None,
        max_length=ALERTS_KEPT,
        description="What the receivers of spec.notifications have been told.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    outputs: dict[str, str] | None = Field(
        None,
        description="Where the results are: on the checkpoint volume, and under each export's name where that has put it.",
    )
    summary: Summary | None = Field(None, description="The printed columns.")
    cleaned_up: bool | None = Field(None, description="Whether ttlSecondsAfterFinished has been carried out.")
