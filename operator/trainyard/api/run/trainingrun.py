"""The TrainingRun: one training from data to evaluated model, as a user writes it.

What of it may change once it has started stands in `changes.py`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from trainyard.api.base import ApiModel, DnsLabel, Rule
from trainyard.api.generated_names import named_by_prefix
from trainyard.api.names import QUEUE_LABEL
from trainyard.api.run.cost import Cost
from trainyard.api.run.dataset import Dataset, DatasetUpload
from trainyard.api.run.estimate import Estimate
from trainyard.api.run.evaluation import Evaluation
from trainyard.api.run.exports import EXPORTS_LIMIT, PUSHED_TO_HUB, Export, in_order
from trainyard.api.run.model import ModelSource
from trainyard.api.run.notifications import NOTIFICATIONS_LIMIT, Notification
from trainyard.api.run.phases import PHASES_LIMIT, Phase, overridden
from trainyard.api.run.pod import Placement, PodTemplate, Resources, StepResources, Storage
from trainyard.api.run.reward import HttpJudge, Reward, RewardModel
from trainyard.api.run.rules import SPEC_RULES
from trainyard.api.run.targets.hub import Hub
from trainyard.api.run.teacher import Teacher
from trainyard.api.run.tracking import Tracking
from trainyard.api.run.training import Checkpoints, Training
from trainyard.api.run.versioning import Owner, Versioning
from trainyard.api.steps import STEP_EVALUATE, STEP_PREPARE, STEP_PROMOTE, STEP_TRAIN, STEP_VALIDATE, train_step

RUN_NAME_LIMIT = 50
"""Characters: the longest Job name, `<run>-evaluate-<attempt>`, has to fit into a label of 63."""
HANDED_ON = "file:///previous-phase"
"""Stands for the folder of the phase before, which only the trainer knows."""


class TrainingRunSpec(ApiModel):
    """What is to be trained, on what, how and where."""

    rules: ClassVar[tuple[Rule, ...]] = SPEC_RULES

    suspend: bool = Field(
        False,
        description="true: the pod writes a checkpoint and goes, the GPU is free. false again: the run goes on from there.",
    )
    mode: Literal["Train", "DryRun", "Debug", "Dataset"] = Field(
        "Train",
        description="Train: all steps. DryRun: check the spec and every record, estimate, and stop. Debug: train only "
        "debugSteps steps and log each of them. Dataset: build the datasets and stop; model and training are not needed.",
    )
    debug_steps: int = Field(100, ge=1, le=1_000_000, description="Optimizer steps in mode Debug.")
    image: str = Field("", max_length=512, description="Trainer image; empty means the operator's default.")
    command: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="A script of your own instead of the built-in trainer. It gets the same volumes, environment, retries "
        "and progress; exit code 75 means: run me again.",
        json_schema_extra={"items": {"type": "string", "maxLength": 4096}},
    )
    args: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Arguments of the command.",
        json_schema_extra={"items": {"type": "string", "maxLength": 4096}},
    )
    model: ModelSource | None = Field(None, description="What is trained.")
    datasets: list[Dataset] | None = Field(
        None,
        min_length=1,
        max_length=32,
        description="What it is trained on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    dataset_upload: DatasetUpload | None = Field(
        None, description="Where the built dataset is copied to, for other runs and other machines."
    )
    training: Training | None = Field(
        None, description="Method and hyperparameters; with phases, those that they have in common."
    )
    phases: list[Phase] | None = Field(
        None,
        min_length=1,
        max_length=PHASES_LIMIT,
        description="Several trainings in a row, each from the result of the one before.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    run_phases: list[DnsLabel] = Field(
        default_factory=list,
        max_length=PHASES_LIMIT,
        description="Only these of the phases. The first of them starts from the newest result of the phase before it on the "
        "checkpoint volume, whichever run left it there; without one, from spec.model.",
    )
    checkpoints: Checkpoints = Field(default_factory=Checkpoints, description="When checkpoints are written.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="What is measured at the end.")
    tracking: Tracking | None = Field(
        None, description="Where the training's numbers are kept besides the status: MLflow, TensorBoard."
    )
    notifications: list[Notification] | None = Field(
        None,
        max_length=NOTIFICATIONS_LIMIT,
        description="Who is told when the run starts, ends, or gets into trouble.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    owner: Owner | None = Field(None, description="Whom the run belongs to.")
    versioning: Versioning | None = Field(None, description="What the result is called in exports.")
    exports: list[Export] | None = Field(
        None,
        min_length=1,
        max_length=EXPORTS_LIMIT,
        description="Where the result (of the last phase) goes. In mode Train only.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    push_to_hub: Hub | None = Field(
        None,
        description=f"Deprecated, and gone in the next version: an export of the name {PUSHED_TO_HUB} with the target hub.",
    )
    storage: Storage = Field(default_factory=Storage, description="The run's volumes.")
    resources: Resources = Field(default_factory=Resources, description="Resources of the training step.")
    num_nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Pods that train together, data parallel; each has spec.resources. Above 1 the training is an Indexed Job.",
    )
    num_proc_per_node: int = Field(
        1,
        ge=1,
        le=16,
        description="Training processes in each pod: as many as it has GPUs. On CPUs they share the quota.",
    )
    step_resources: StepResources = Field(default_factory=StepResources, description="Resources of the other steps.")
    placement: Placement = Field(default_factory=Placement, description="On which node the run's pods go.")
    pod_template: PodTemplate = Field(default_factory=PodTemplate, description="What is added to the pods.")
    on_out_of_memory: Literal["ReduceBatch", "Fail"] = Field(
        "ReduceBatch",
        description="What to do when the device has too little memory. ReduceBatch: go on from the last step with smaller batches "
        "and more accumulation (the same effective batch), then gradient checkpointing, then an 8-bit optimizer.",
    )
    estimate: Estimate | None = Field(None, description="What mode DryRun reckons time and cost with.")
    cost: Cost | None = Field(None, description="What a GPU hour costs, and how much the run may spend.")
    backoff_limit: int = Field(
        3,
        ge=0,
        le=1000,
        description="How many failed attempts the run may have; one more and it fails. Disruptions (eviction, drain, node loss) do "
        "not count.",
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="The run fails when its pods have been wanted for so long in total. Time spent suspended does not count.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="So long after the end, Jobs, pods and the run's Secret are deleted. The run and its volumes stay.",
    )

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.num_nodes * self.num_proc_per_node

    def steps(self) -> tuple[str, ...]:
        """The steps in order. Each one is a Job; with a command of one's own, training is that command."""
        if self.mode == "DryRun":
            return (STEP_VALIDATE,)
        if self.mode == "Dataset":
            return (STEP_PREPARE,)
        if self.command:
            return (STEP_PREPARE, STEP_TRAIN) if self.datasets or self.storage.workspace else (STEP_TRAIN,)
        phases = phases_to_run(self)
        # The result is that of the last phase, so it is measured on what that phase has held out.
        last = next((p.datasets for p in self.phases or () if p.name == phases[-1]), None)
        evaluate = self.evaluation.enabled and self.has_held_out(self.evaluation.split, among=last)
        trainings = tuple(map(train_step, phases or (None,)))
        return (STEP_PREPARE, *trainings, STEP_EVALUATE) if evaluate else (STEP_PREPARE, *trainings)

    def all_exports(self) -> tuple[Export, ...]:
        """Every export of a run of this mode, each after what it depends on. What mode Debug makes is no result."""
        if self.mode != "Train":
            return ()
        pushed = [] if self.push_to_hub is None else [Export(name=PUSHED_TO_HUB, hub=self.push_to_hub)]
        return in_order([*(self.exports or ()), *pushed])

    def all_steps(self) -> tuple[str, ...]:
        """The steps with exports, each after what it waits for; some of these may work beside each other."""
        exports = self.all_exports()
        promotion = (STEP_PROMOTE,) if any(export.promotes for export in exports) else ()
        return (*self.steps(), *(export.step for export in exports), *promotion)

    @property
    def has_gates(self) -> bool:
        """Whether the evaluation says of the result that it is good enough, or not."""
        asked = self.evaluation.gates or self.evaluation.minimum_gain is not None
        return self.evaluation.enabled and bool(asked)

    def is_gated(self, export: Export) -> bool:
        """Whether the export waits for what the evaluation says."""
        return export.when == "GatesPassed" or (export.when is None and self.has_gates)

    def broken_rules(self) -> list[str]:
        """Those of the whole; if they hold, those of each phase."""
        return super().broken_rules() or phase_faults(self)

    def has_held_out(self, split: str, *, among: Sequence[str] | None = None) -> bool:
        """Whether any record can be in this split; with `among`, any of the datasets of these names."""
        share = split.lower()
        return any(
            d.role == split
            or (d.split is not None and getattr(d.split, share) > 0)
            or (split == "Eval" and d.puzzle is not None and d.puzzle.kind == "Arrays")  # it has a test of its own
            for d in self.datasets or ()
            if among is None or d.name in among
        )

    def reward_models(self) -> list[tuple[str, RewardModel]]:
        """The reward models of the run and of its phases, each with the path of its field."""
        return [(f"{path}.model", reward.model) for path, reward in self._rewards() if reward.model is not None]

    def http_judges(self) -> list[tuple[str, HttpJudge]]:
        """The same of web services that judge."""
        return [(f"{path}.http", reward.http) for path, reward in self._rewards() if reward.http is not None]

    def code_runs(self) -> list[str]:
        """The fields of rewards that run programs."""
        return [f"{path}.code" for path, reward in self._rewards() if reward.code is not None]

    def teachers(self) -> list[tuple[str, Teacher]]:
        """The teachers of the run and of its phases."""
        return [(f"{path}.teacher", training.teacher) for path, training in self._trainings() if training.teacher]

    def _rewards(self) -> list[tuple[str, Reward]]:
        return [
            (f"{path}.rewards[{index}]", reward)
            for path, training in self._trainings()
            for index, reward in enumerate(training.rewards or ())
        ]

    def _trainings(self) -> list[tuple[str, Any]]:
        """What is given of each, with the path of its field."""
        found: list[tuple[str, Any]] = [("spec.training", self.training)]
        found += [(f"spec.phases[{phase.name}].training", phase.training) for phase in self.phases or ()]
        return [(path, training) for path, training in found if training is not None]

    def total_steps_hint(self) -> int | None:
        """The number of optimizer steps where the spec alone tells it."""
        if self.training is None or self.training.max_steps is None:
            return None
        return min(self.training.max_steps, self.debug_steps) if self.mode == "Debug" else self.training.max_steps


def phases_to_run(spec: TrainingRunSpec) -> tuple[str, ...]:
    """Names of the phases in order, without those that runPhases leaves out; empty for a run without phases."""
    return tuple(p.name for p in spec.phases or () if not spec.run_phases or p.name in spec.run_phases)


def predecessor(spec: TrainingRunSpec, name: str) -> str | None:
    """The phase from whose result this one starts; None for the first of all, which starts from spec.model.

    For the first of runPhases it is the phase before it in the list, whose result lies on the volume if it has run.
    """
    order = phases_to_run(spec)
    if name in order[1:]:
        return order[order.index(name) - 1]
    all_names = [p.name for p in spec.phases or ()]
    index = all_names.index(name)
    return all_names[index - 1] if index else None


def resolve(spec: TrainingRunSpec, name: str, *, handed_on: bool = True) -> TrainingRunSpec:
    """The spec of one phase, as if it were a run of its own.

    Args:
        name: one of spec.phases.
        handed_on: whether the phase before has left a result. Then the model comes from HANDED_ON, else from spec.model.

    Raises:
        ValidationError: the phase breaks a rule.
        KeyError: there is no such phase.
    """
    phase = next((p for p in spec.phases or () if p.name == name), None)
    if phase is None:
        raise KeyError(name)
    model = spec.model
    if model is not None and handed_on and predecessor(spec, name) is not None:
        model = model.model_copy(update={"storage_uri": HANDED_ON, "scratch": None, "secret_ref": None})
    checkpoints = spec.checkpoints
    if name in phases_to_run(spec)[1:]:
        checkpoints = checkpoints.model_copy(update={"resume_from": ""})
    evaluation = spec.evaluation
    if name != phases_to_run(spec)[-1]:
        # Only the result of the last phase is judged.
        evaluation = evaluation.model_copy(
            update={"metrics": None, "gates": None, "compare_with": None, "harness": None, "baseline_answers": False}
        )
    wanted = phase.datasets
    changes = {
        "phases": None,
        "run_phases": [],
        "model": model,
        "datasets": [d for d in spec.datasets or () if wanted is None or d.name in wanted],
        "training": overridden(spec.training, phase.training),
        "checkpoints": checkpoints,
        "evaluation": evaluation,
    }
    return TrainingRunSpec.model_validate({**dict(spec), **changes})


def phase_faults(spec: TrainingRunSpec) -> list[str]:
    """What is wrong with phases by themselves, each as a sentence that names the phase."""
    found = []
    for phase in spec.phases or ():
        try:
            resolve(spec, phase.name)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                messages = detail["ctx"]["messages"] if detail["type"] == "rule" else [detail["msg"]]
                found += [f"phase {phase.name}: {message}" for message in messages]
    return found


class Metadata(BaseModel):
    """The part of an object's metadata that is read here; the rest is Kubernetes' own and passes unread."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _will_be_named(cls, given: Any) -> Any:
        return named_by_prefix(given, limit=RUN_NAME_LIMIT)

    name: str = Field(min_length=1, max_length=RUN_NAME_LIMIT, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = Field("", alias="creationTimestamp")
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TrainingRun(BaseModel):
    """A whole object, as read from a file or from the API server. The status stays a plain mapping here."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, populate_by_name=True)

    api_version: Literal["trainyard.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["TrainingRun"]
    metadata: Metadata
    spec: TrainingRunSpec
    status: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _makes_room_or_waits_in_a_queue(self) -> Self:
        # Labels are nothing that a rule of the schema can see, so the operator and `validate` alone say this.
        if self.spec.placement.yield_from and QUEUE_LABEL in self.metadata.labels:
            told = (
                f"spec.placement.yieldFrom: a run with the label {QUEUE_LABEL} may wait for days, and would keep the Deployment down "
                "meanwhile: remove the label or the field"
            )
            raise PydanticCustomError("rule", "{message}", {"message": told, "messages": [told]})
        return self
