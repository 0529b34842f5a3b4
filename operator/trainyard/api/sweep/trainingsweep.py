"""The TrainingSweep: a template of a TrainingRun, and what is to be varied in it to find the best value of a metric.

Each trial is a TrainingRun of its own, and these runs are all that a sweep remembers: which values a trial has stands in an
annotation of its run, what came of it in the run's status. Names follow from sweep and number, so that no trial can be made
twice.
"""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainyard.api import GROUP
from trainyard.api.base import ApiModel, Rule, exactly_one
from trainyard.api.generated_names import named_by_prefix
from trainyard.api.schedule.trainingschedule import RunTemplate

SWEEP_NAME_LIMIT = 46
"""Characters: a run is called `<sweep>-<number>`, and a run's name has at most 50."""
TRIALS_LIMIT = 500
PARAMETERS_LIMIT = 16
EVALUATION_PREFIX = "eval/"
"""Before the name of a metric: that of the evaluation after the training, not one that the training reports."""

SWEEP_LABEL = f"{GROUP}/sweep"
SWEEP_UID_LABEL = f"{GROUP}/sweep-uid"
TRIAL_LABEL = f"{GROUP}/trial"
"""On a run: the number of the trial, from 1."""
ASSIGNMENTS_ANNOTATION = f"{GROUP}/assignments"
"""On a run: JSON object, from each parameter's name to its value in this trial."""
RUNGS_ANNOTATION = f"{GROUP}/rungs"
"""On a run: JSON object, from the step of each rung that the trial has reached to its value there (null where it had none)."""
PROMOTED_ANNOTATION = f"{GROUP}/promoted-beyond"
"""On a run: step of the last rung that the trial may train beyond."""

VARIED = (
    r"^(training|model\.adapter|datasets\[[0-9]+\]|phases\[[0-9]+\]\.training)(\.[A-Za-z0-9_]+|\[[0-9]+\])+$"
    r"|^args\[[0-9]+\]$|^podTemplate\.env\[[0-9]+\]\.value$"
)
"""Where a parameter may lie. Not at what names a Secret or makes a pod: the author of a sweep is asked about its template."""


class Domain(ApiModel):
    """Bounds of a number."""

    log: bool = Field(False, description="true: equally likely on a logarithmic scale; min has to be above 0 then.")
    points: int | None = Field(
        None, ge=2, le=100, description="Algorithm Grid: so many values from min to max, both included."
    )


def _domain_rules() -> tuple[Rule, ...]:
    return (
        Rule("self.min < self.max", "a parameter's min must be below its max", lambda d: d.min < d.max),
        Rule(
            "!has(self.log) || !self.log || self.min > 0",
            "a logarithmic scale has no 0: raise min above 0, or set log to false",
            lambda d: not d.log or d.min > 0,
        ),
    )


class Double(Domain):
    """Any number between two bounds."""

    rules: ClassVar[tuple[Rule, ...]] = _domain_rules()

    min: float = Field(ge=-1e12, le=1e12, description="Smallest value.")
    max: float = Field(ge=-1e12, le=1e12, description="Largest value.")


class Int(Domain):
    """A whole number between two bounds."""

    rules: ClassVar[tuple[Rule, ...]] = _domain_rules()

    min: int = Field(ge=-(2**31), le=2**31 - 1, description="Smallest value.")
    max: int = Field(ge=-(2**31), le=2**31 - 1, description="Largest value.")


def _scalars(schema: dict[str, Any]) -> None:
    schema["items"] = {"x-kubernetes-preserve-unknown-fields": True}


class Choice(ApiModel):
    """One of a few values."""

    values: list[Any] = Field(
        min_length=1,
        max_length=64,
        description="Texts, numbers, or true and false, as they would stand in the run.",
        json_schema_extra=_scalars,
    )


class Parameter(ApiModel):
    """One field of the run that is varied."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("double", "int", "choice", message="a parameter needs exactly one of double, int and choice"),
        Rule(
            "!self.name.contains('secretRef')",
            "a parameter cannot vary which Secret is read: name another field",
            lambda p: "secretRef" not in p.name,
        ),
    )

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=VARIED,
        description="Path of the field in template.spec: training.learningRate, model.adapter.lora.rank, "
        "datasets[0].weight, training.extraArgs.beta; for a script args[1] or podTemplate.env[0].value. Fields may lie in training, "
        "model.adapter, datasets[], phases[].training, args[] and podTemplate.env[].value.",
    )
    double: Double | None = Field(None, description="Any number between two bounds.")
    int: Int | None = Field(None, description="A whole number between two bounds.")
    choice: Choice | None = Field(None, description="One of a few values.")


class Objective(ApiModel):
    """What is to become as small or as large as possible."""

    metric: str = Field(
        min_length=1,
        max_length=160,
        pattern=r"^[A-Za-z0-9_./-]+$",
        description="Name of a metric that the training reports (loss, eval_loss, token_accuracy, what a script reports: its newest "
        "value counts), or eval/NAME for one of the evaluation after the training (eval/loss, eval/exactMatch).",
    )
    direction: Literal["Minimize", "Maximize"] = Field("Minimize", description="Whether less or more is better.")
    goal: float | None = Field(
        None, ge=-1e12, le=1e12, description="As good as this is good enough: the sweep ends then, before numTrials."
    )


class Asha(ApiModel):
    """Asynchronous successive halving: of the trials that have reached a rung, only the best train beyond it."""

    minimum_steps: int = Field(ge=1, le=100_000_000, description="Optimizer steps up to the first rung.")
    reduction_factor: int = Field(
        3,
        ge=2,
        le=16,
        description="One of so many trials trains beyond a rung, and each rung lies so many times as far as the one before.",
    )
    rungs: int = Field(3, ge=1, le=10, description="How many rungs there are before the end of the training.")


class SweepEarlyStopping(ApiModel):
    """How trials are stopped that are worse than others."""

    asha: Asha = Field(description="Asynchronous successive halving.")


class TrainingSweepSpec(ApiModel):
    """What is varied, how, and for how long."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.template.spec.suspend) || !self.template.spec.suspend",
            "template.spec.suspend would make trials that never start: set spec.suspend to pause the sweep instead",
            lambda s: not s.template.spec.suspend,
        ),
        Rule(
            "has(self.numTrials) || self.algorithm == 'Grid'",
            "numTrials says when the sweep ends; only algorithm Grid knows by itself",
            lambda s: s.num_trials is not None or s.algorithm == "Grid",
        ),
        Rule(
            "!has(self.earlyStopping) || !self.objective.metric.startsWith('eval/')",
            "earlyStopping compares trials while they train, and eval/ metrics are measured afterwards: take one that the training "
            "reports, such as eval_loss",
            lambda s: s.early_stopping is None or not s.objective.metric.startswith(EVALUATION_PREFIX),
        ),
        Rule(
            "!has(self.earlyStopping) || !has(self.template.spec.phases)",
            "earlyStopping counts the steps of one training: leave template.spec.phases out, or earlyStopping",
            lambda s: s.early_stopping is None or not s.template.spec.phases,
        ),
    )

    template: RunTemplate = Field(description="The run that each trial is made of.")
    parameters: list[Parameter] = Field(
        min_length=1,
        max_length=PARAMETERS_LIMIT,
        description="What is varied. Fixed once the sweep exists.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    objective: Objective = Field(description="What makes a trial good.")
    algorithm: Literal["Grid", "Random", "Sobol", "TPE"] = Field(
        "TPE",
        description="Grid: all combinations, in order. Random: any. Sobol: spread evenly. TPE: near what was good in the trials "
        "before (tree-structured Parzen estimator); the first ten as with Sobol.",
    )
    seed: int = Field(42, ge=0, le=2147483647, description="With the same seed and results, the same trials are made.")
    num_trials: int | None = Field(
        None,
        ge=1,
        le=TRIALS_LIMIT,
        description="How many trials there are in all; may grow. Default of Grid: all combinations.",
    )
    parallel_trials: int = Field(1, ge=1, le=100, description="How many train at the same time.")
    max_failed_trials: int = Field(
        5,
        ge=0,
        le=TRIALS_LIMIT,
        description="If more trials than these fail, the sweep does; raised later, it goes on.",
    )
    suspend: bool = Field(
        False, description="true: all trials write a checkpoint and go. false again: they go on from there."
    )
    early_stopping: SweepEarlyStopping | None = Field(
        None,
        description="Stop trials that are worse than others. A stopped trial is a suspended run with its checkpoint: it goes on "
        "exactly when it turns out to be among the best.",
    )


class SweepMetadata(BaseModel):
    """The part of the metadata that is read here."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _will_be_named(cls, given: Any) -> Any:
        return named_by_prefix(given, limit=SWEEP_NAME_LIMIT)

    name: str = Field(min_length=1, max_length=SWEEP_NAME_LIMIT, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    namespace: str = "default"


class TrainingSweep(ApiModel):
    """A whole object, as read from a file or from the API server. The status stays a plain mapping here."""

    api_version: Literal["trainyard.dev/v1alpha1"]
    kind: Literal["TrainingSweep"]
    metadata: SweepMetadata
    spec: TrainingSweepSpec
    status: dict[str, Any] = Field(default_factory=dict)


_STATUS_WRITE = "(has(self.status) && has(oldSelf.status) && self.status != oldSelf.status)"
"""CEL: the spec cannot have changed; comparing it is the dearest part of a write."""


def _fixed(field: str) -> Rule:
    here, before = f"has(self.spec.{field})", f"has(oldSelf.spec.{field})"
    return Rule(
        f"{_STATUS_WRITE} || ({here} ? {before} && self.spec.{field} == oldSelf.spec.{field} : !{before})",
        f"spec.{field} is fixed, because trials that were made before it could not be compared with those after it: make a new "
        "sweep",
    )


SWEEP_ROOT_RULES: tuple[Rule, ...] = (
    Rule(
        f"self.metadata.name.size() <= {SWEEP_NAME_LIMIT} && "
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name must be at most {SWEEP_NAME_LIMIT} characters of a-z, 0-9 and -, because runs are named after it",
    ),
    *map(_fixed, ("parameters", "objective", "algorithm", "seed", "earlyStopping")),
    _fixed("template"),
    Rule(
        f"{_STATUS_WRITE} || !has(oldSelf.spec.numTrials) || (has(self.spec.numTrials) && "
        "self.spec.numTrials >= oldSelf.spec.numTrials)",
        "spec.numTrials may grow and not shrink: set suspend to true to make no more trials",
    ),
)
"""Rules over the whole object: only at its root the API server lets them read the name, and both versions of it."""
