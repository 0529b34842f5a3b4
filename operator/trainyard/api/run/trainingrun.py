"""The TrainingRun: one training from data to evaluated model, as a user writes it.

What of it may change once it has started stands in `changes.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainyard.api.base import ApiModel, DnsLabel, Fetched, Rule
from trainyard.api.run.dataset import Dataset, DatasetUpload
from trainyard.api.run.estimate import Estimate
from trainyard.api.run.exports import PushToHub
from trainyard.api.run.methods import METHODS, TINY, Lesson, acceptable, chosen, none_of, one_of, sentence
from trainyard.api.run.model import ModelSource
from trainyard.api.run.phases import PHASES_LIMIT, Phase, phase_faults, phases_to_run, resolve
from trainyard.api.run.pod import Placement, PodTemplate, Resources, StepResources, Storage
from trainyard.api.run.reward import RewardModel
from trainyard.api.run.tracking import Tracking
from trainyard.api.run.training import Checkpoints, Evaluation, Training
from trainyard.api.steps import STEP_EVALUATE, STEP_PREPARE, STEP_TRAIN, STEP_VALIDATE, train_step

RUN_NAME_LIMIT = 50
"""Characters: the longest Job name, `<run>-evaluate-<attempt>`, has to fit into a label of 63."""

# What lets most runs pass comes first, because each mention of a field costs (see `Fetched`); so whether a field is there is
# asked last: in CEL, an error before `||` is nothing if what follows is true.
_SCRIPT = Fetched("script", "has(self.command) && size(self.command) > 0")
_PHASED = Fetched("phased", "has(self.phases)")
_METHOD = Fetched("method", "self.training.method", unless="!has(self.training) || has(self.phases)")


def _in_one_training(cel: str, message: str, holds: Callable[[Any], bool]) -> Rule:
    """A rule about a training and its model and data. With phases it is one of each of them (`phase_faults`), not of the whole."""
    return Rule(cel, message, lambda s: s.phases is not None or s.training is None or holds(s), about=_METHOD)


TRM_RULES = (
    _in_one_training(
        f"({one_of(TINY)}) == has(self.model.trm) || !has(self.model)",
        "method TRM trains spec.model.trm, and nothing else does: set both, or neither",
        lambda s: s.model is None or (s.training.method in TINY) == (s.model.trm is not None),
    ),
    _in_one_training(
        f"({none_of(TINY)} ? self.datasets.all(d, !has(d.puzzle)) : self.datasets.all(d, has(d.puzzle)) || "
        "self.datasets.all(d, !has(d.puzzle) && (d.format == 'TRM' || has(d.generate)))) || !has(self.datasets)",
        "method TRM learns from puzzles or from records of format TRM, one of the two in all datasets; no other method learns "
        "from puzzles",
        lambda s: s.datasets is None or _are_data_of(s.training.method, s.datasets),
    ),
    Rule(
        "has(self.training) || has(self.phases) || !has(self.datasets) || self.datasets.all(d, !has(d.puzzle))",
        "puzzles are for method TRM alone: set spec.training.method to TRM, or remove the dataset with a puzzle",
        lambda s: s.training is not None or s.phases is not None or all(d.puzzle is None for d in s.datasets or ()),
    ),
    Rule(
        "!phased || !has(self.model) || !has(self.model.trm)",
        "a Tiny Recursive Model is trained in one go: remove spec.phases",
        lambda s: s.phases is None or s.model is None or s.model.trm is None,
        about=_PHASED,
    ),
    Rule(
        None,  # it would mention four fields, see above; the operator refuses it in the same words
        "method TRM shares its batch out: training.perDeviceTrainBatchSize x gradientAccumulationSteps must be divisible by "
        "numNodes x numProcPerNode",
        lambda s: (
            s.training is None
            or s.training.method not in TINY
            or s.training.per_device_train_batch_size * s.training.gradient_accumulation_steps % s.world_size == 0
        ),
    ),
    Rule(
        "!has(self.evaluation) || (!has(self.evaluation.baselines) && !has(self.evaluation.minimumGain)) || "
        "(has(self.model) && has(self.model.trm))",
        "evaluation.baselines and minimumGain belong to method TRM: remove them",
        lambda s: (
            (s.model is not None and s.model.trm is not None)
            or (s.evaluation.baselines is None and s.evaluation.minimum_gain is None)
        ),
    ),
)


def _are_data_of(method: str, datasets: Sequence[Dataset]) -> bool:
    """Whether a TRM gets either puzzles or records of its own format, and no other model a puzzle."""
    puzzles = [d.puzzle is not None for d in datasets]
    if method not in TINY:
        return not any(puzzles)
    return all(puzzles) or (not any(puzzles) and all(d.record_format == "TRM" for d in datasets))


def _formats(lesson: Lesson) -> Rule:
    """The formats of records that methods can learn from."""
    methods, formats = chosen(lambda method: method.learns is lesson), acceptable(lesson)
    return _in_one_training(
        f"!(method in {list(methods)}) || self.datasets.all(d, "
        f"(has(d.convertTo) ? d.convertTo : has(d.generate) ? 'TRM' : d.format) in {formats}) || !has(self.datasets)",
        sentence(methods, lesson.refusal),
        lambda s: (
            s.training.method not in methods
            or s.datasets is None
            or all((d.convert_to or d.record_format) in formats for d in s.datasets)
        ),
    )


def _from_scratch(name: str) -> Rule:
    return _in_one_training(
        f"{none_of([name])} || has(self.model.scratch) || !has(self.model)",
        f"method {name} starts from random weights: give spec.model.scratch, or use method CPT to go on from existing weights",
        lambda s: s.training.method != name or s.model is None or s.model.scratch is not None,
    )


def _from_existing(name: str) -> Rule:
    return _in_one_training(
        f"{none_of([name])} || has(self.model.storageUri) || !has(self.model)",
        f"method {name} goes on from existing weights: give spec.model.storageUri, or use method Pretrain to start from "
        "spec.model.scratch",
        lambda s: s.training.method != name or s.model is None or s.model.storage_uri is not None,
    )


_ALONE = chosen(lambda method: not method.several_processes)
_WITHOUT_DROPOUT = chosen(lambda method: not method.allows_dropout)
METHOD_RULES = (
    *map(_from_scratch, chosen(lambda method: method.weights == "scratch")),
    *map(_from_existing, chosen(lambda method: method.weights == "existing")),
    *(_formats(lesson) for lesson in dict.fromkeys(m.learns for m in METHODS.values()) if lesson.refusal),
    _in_one_training(
        f"{none_of(_ALONE)} || (self.numNodes == 1 && self.numProcPerNode == 1)",
        sentence(_ALONE, "{methods} train{s} in one process: remove spec.numNodes and spec.numProcPerNode"),
        lambda s: s.training.method not in _ALONE or s.world_size == 1,
    ),
    _in_one_training(
        f"{none_of(_WITHOUT_DROPOUT)} || !has(self.model) || !has(self.model.adapter) || "
        "self.model.adapter.lora.dropout == 0.0",
        sentence(
            _WITHOUT_DROPOUT,
            "{methods} compare{s} probabilities of the same tokens before and after an update, which dropout would blur: "
            "remove spec.model.adapter.lora.dropout",
        ),
        lambda s: (
            s.training.method not in _WITHOUT_DROPOUT
            or s.model is None
            or s.model.adapter is None
            or s.model.adapter.lora.dropout == 0
        ),
    ),
)


class TrainingRunSpec(ApiModel):
    """What is to be trained, on what, how and where."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.model) && has(self.datasets) && (has(self.training) || has(self.phases))) || "
            f"({_SCRIPT.cel}) || self.mode == 'Dataset'",
            "the built-in trainer needs spec.model, spec.datasets and spec.training; to run a script of your own instead, set "
            "spec.command",
            lambda s: (
                bool(s.command)
                or s.mode == "Dataset"
                or (s.model is not None and bool(s.datasets) and bool(s.training or s.phases))
            ),
        ),
        Rule(
            "self.mode != 'Dataset' || has(self.datasets)",
            "mode Dataset builds spec.datasets: give at least one",
            lambda s: s.mode != "Dataset" or bool(s.datasets),
        ),
        Rule(
            "!has(self.datasetUpload) || has(self.datasets)",
            "spec.datasetUpload needs something to upload: give spec.datasets, or remove it",
            lambda s: s.dataset_upload is None or bool(s.datasets),
        ),
        Rule(
            "script || !has(self.args) || size(self.args) == 0",
            "spec.args are the arguments of spec.command: set spec.command too, or remove spec.args",
            lambda s: bool(s.command) or not s.args,
            about=_SCRIPT,
        ),
        Rule(
            "!script || self.mode == 'Train'",
            "modes DryRun, Debug and Dataset belong to the built-in trainer: with spec.command set, mode must be Train",
            lambda s: not s.command or s.mode == "Train",
            about=_SCRIPT,
        ),
        Rule(
            "!script || (has(self.image) && self.image != '')",
            "spec.command runs in an image of your own: set spec.image",
            lambda s: not s.command or s.image != "",
            about=_SCRIPT,
        ),
        Rule(
            "self.datasets.exists(d, d.role == 'Train') || !has(self.datasets)",
            "spec.datasets has nothing to train on: at least one dataset needs role Train",
            lambda s: s.datasets is None or any(d.role == "Train" for d in s.datasets),
        ),
        Rule(
            None,
            "two datasets have the same name: rename one of them",
            lambda s: len({d.name for d in s.datasets or ()}) == len(s.datasets or ()),
        ),
        *METHOD_RULES,
        *TRM_RULES,
        Rule(
            "self.numNodes == 1 || (has(self.storage) && has(self.storage.checkpoints) && ("
            "(has(self.storage.checkpoints.accessModes) && 'ReadWriteMany' in self.storage.checkpoints.accessModes) || "
            "(has(self.storage.checkpoints.claimName) && !has(self.storage.checkpoints.size)))) || "
            "(has(self.placement) && has(self.placement.nodeNames) && size(self.placement.nodeNames) == 1)",
            "with numNodes above 1, pods on several nodes write to the checkpoint volume: set "
            "spec.storage.checkpoints.accessModes to [ReadWriteMany], or keep all pods on one node with a single name in "
            "spec.placement.nodeNames",
            lambda s: (
                s.num_nodes == 1
                or "ReadWriteMany" in s.storage.checkpoints.access_modes
                or (s.storage.checkpoints.claim_name is not None and s.storage.checkpoints.size is None)
                or len(s.placement.node_names) == 1
            ),
        ),
        Rule(
            "!script || !has(self.phases)",
            "spec.phases belong to the built-in trainer: remove spec.command, or the phases",
            lambda s: s.phases is None or not s.command,
            about=_SCRIPT,
        ),
        Rule(
            "!script || !has(self.tracking)",
            "spec.tracking belongs to the built-in trainer: remove it; the script of spec.command can talk to MLflow itself",
            lambda s: s.tracking is None or not s.command,
            about=_SCRIPT,
        ),
        Rule(
            "!script || !has(self.pushToHub)",
            "spec.pushToHub belongs to the built-in trainer: remove it; the script of spec.command can upload its result itself",
            lambda s: s.push_to_hub is None or not s.command,
            about=_SCRIPT,
        ),
        Rule(
            None,
            "two phases have the same name: rename one of them",
            lambda s: len({p.name for p in s.phases or ()}) == len(s.phases or ()),
        ),
        Rule(
            "!phased || self.phases.all(p, !has(p.datasets) || p.datasets.all(n, has(self.datasets) && "
            "self.datasets.exists(d, d.name == n)))",
            "spec.phases names a dataset that does not stand in spec.datasets: correct the name, or add the dataset",
            lambda s: all(n in {d.name for d in s.datasets or ()} for p in s.phases or () for n in p.datasets or ()),
            about=_PHASED,
        ),
        Rule(
            "!has(self.runPhases) || self.runPhases.all(n, has(self.phases) && self.phases.exists(p, p.name == n))",
            "spec.runPhases names a phase that does not stand in spec.phases: correct the name, or remove it",
            lambda s: all(n in {p.name for p in s.phases or ()} for n in s.run_phases),
        ),
        Rule(
            "!phased || !has(self.model) || !has(self.model.adapter) || self.model.adapter.merge",
            "a phase goes on from a whole model: with spec.phases, spec.model.adapter.merge must be true",
            lambda s: s.phases is None or s.model is None or s.model.adapter is None or s.model.adapter.merge,
            about=_PHASED,
        ),
    )

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
    push_to_hub: PushToHub | None = Field(
        None, description="Upload the result (of the last phase) to a Hugging Face hub. In mode Train only."
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
            return (STEP_PREPARE, STEP_TRAIN) if self.datasets else (STEP_TRAIN,)
        phases = phases_to_run(self)
        # The result is that of the last phase, so it is measured on what that phase has held out.
        last = resolve(self, phases[-1]) if phases else self
        evaluate = self.evaluation.enabled and last.has_held_out(self.evaluation.split)
        trainings = tuple(map(train_step, phases or (None,)))
        return (STEP_PREPARE, *trainings, STEP_EVALUATE) if evaluate else (STEP_PREPARE, *trainings)

    def broken_rules(self) -> list[str]:
        """Those of the whole; if they hold, those of each phase."""
        return super().broken_rules() or phase_faults(self)

    def has_held_out(self, split: str) -> bool:
        """Whether any record can be in this split."""
        share = split.lower()
        return any(
            d.role == split
            or (d.split is not None and getattr(d.split, share) > 0)
            or (split == "Eval" and d.puzzle is not None and d.puzzle.kind == "Arrays")  # it has a test of its own
            for d in self.datasets or ()
        )

    def reward_models(self) -> list[tuple[str, RewardModel]]:
        """The reward models of the run and of its phases, each with the path of its field."""
        trainings: list[tuple[str, Any]] = [("spec.training", self.training)]
        trainings += [(f"spec.phases[{phase.name}].training", phase.training) for phase in self.phases or ()]
        return [
            (f"{path}.rewards[{index}].model", reward.model)
            for path, training in trainings
            for index, reward in enumerate((training.rewards if training else None) or ())
            if reward.model is not None
        ]

    def total_steps_hint(self) -> int | None:
        """The number of optimizer steps where the spec alone tells it."""
        if self.training is None or self.training.max_steps is None:
            return None
        return min(self.training.max_steps, self.debug_steps) if self.mode == "Debug" else self.training.max_steps


class Metadata(BaseModel):
    """The part of an object's metadata that is read here; the rest is Kubernetes' own and passes unread."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: str = Field(min_length=1, max_length=RUN_NAME_LIMIT, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = Field("", alias="creationTimestamp")
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TrainingRun(BaseModel):
    """A whole object, as read from a file or from the API server. The status stays a plain mapping here."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    api_version: Literal["trainyard.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["TrainingRun"]
    metadata: Metadata
    spec: TrainingRunSpec
    status: dict[str, Any] = Field(default_factory=dict)
