"""`spec.training` and `spec.checkpoints`: how it is trained. Hyperparameters have their Hugging Face / TRL names."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainyard.api.base import ApiModel, Fetched, Rule, at_most_one, opaque
from trainyard.api.run.methods import (
    GROUPING,
    METHODS,
    REWARDED,
    STEADY,
    STOPPERS,
    TAUGHT,
    TINY,
    MethodName,
    default_rates,
    listed,
    none_of,
    one_of,
    sentence,
)
from trainyard.api.run.reward import Reward
from trainyard.api.run.teacher import Teacher
from trainyard.api.run.trm import TrmTraining

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
)
CallbackName = Annotated[
    str, Field(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$")
]
MUON = "muon"
"""Name of the optimizer that transformers does not know."""
TRM_SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
_METHOD = Fetched("method", "self.method")


class EarlyStopping(ApiModel):
    """End the training when evaluations get no better. Needs evalSteps and held-out data."""

    metric: Literal[STOPPERS] | None = Field(  # type: ignore[valid-type]
        None,
        description="Metric of the held-out data. Default: objective/scores for PPO, GRPO and RLOO, exactMatch for TRM, "
        "loss for all others. loss is better when it is lower, all others when they are higher.",
    )
    patience: int = Field(
        3, ge=1, le=10_000, description="After so many evaluations in a row without an improvement the training ends."
    )
    minimum_delta: float = Field(
        0.0, ge=0, le=1_000_000, description="An evaluation is better if it is so by more than this."
    )


class Training(ApiModel):
    """The training method and its hyperparameters."""

    rules: ClassVar[tuple[Rule, ...]] = (
        at_most_one(
            "max_steps",
            "num_train_epochs",
            message="maxSteps and numTrainEpochs exclude each other: remove one of them",
        ),
        Rule(
            f"!has(self.trm) || {one_of(TINY, 'self.method')}",
            "training.trm belongs to method TRM: set that method, or remove training.trm",
            lambda t: t.method in TINY or t.trm is None,
        ),
        Rule(
            f"{none_of(TINY)} || (self.lrSchedulerType in {list(TRM_SCHEDULERS)} && self.optim.startsWith('adamw_torch') "
            "&& self.precision != 'FP16' && !self.gradientCheckpointing)",
            f"method TRM has its own loop: lrSchedulerType is one of {', '.join(TRM_SCHEDULERS)}, optim adamw_torch, precision "
            "Auto, FP32 or BF16, and gradientCheckpointing false",
            lambda t: (
                t.method not in TINY
                or (
                    t.lr_scheduler_type in TRM_SCHEDULERS
                    and t.optim.startswith("adamw_torch")
                    and t.precision != "FP16"
                    and not t.gradient_checkpointing
                )
            ),
            about=_METHOD,
        ),
        Rule(
            "!has(self.earlyStopping) || has(self.evalSteps)",
            "training.earlyStopping looks at the evaluations of evalSteps: set evalSteps too",
            lambda t: t.early_stopping is None or t.eval_steps is not None,
        ),
        Rule(
            None,
            "training.earlyStopping.metric is none that the method measures: loss, and rewards/margins of DPO, ORPO, RewardModel and "
            "KTO, rewards/accuracies of the first three; objective/scores of PPO, GRPO and RLOO and exactMatch of TRM alone",
            lambda t: (
                t.early_stopping is None
                or t.early_stopping.metric is None
                or t.early_stopping.metric in METHODS[t.method].stops_by
            ),
        ),
        Rule(
            None,
            sentence(
                GROUPING,
                "{methods} compare{s} the answers to one prompt in one step: perDeviceTrainBatchSize x gradientAccumulationSteps "
                f"must be divisible by extraArgs.num_generations ({', '.join(f'{name}: {METHODS[name].group}' for name in GROUPING)})",
            ),
            lambda t: divides_into_groups(t),
        ),
        Rule(
            None,
            "training.neftuneNoiseAlpha is noise on the embeddings of a text, which method TRM does not have and which would blur "
            f"the probabilities that {listed(STEADY)} compare: remove it",
            lambda t: t.neftune_noise_alpha is None or t.method not in (*TINY, *STEADY),
        ),
        Rule(
            None,
            "training.extraArgs.temperature other than 1 would need all of the teacher's probabilities, and a server tells the likeliest "
            "alone: remove it, or name the teacher by training.teacher.storageUri",
            lambda t: t.teacher is None or t.teacher.http is None or t.extra_args.get("temperature", 1) == 1,
        ),
        Rule(
            None,
            "training.attention FlashAttention2 computes in BF16 or FP16: remove precision FP32, or use SDPA",
            lambda t: t.attention != "FlashAttention2" or t.precision != "FP32",
        ),
        Rule(
            None,
            "method TRM has its own attention: remove training.attention",
            lambda t: t.attention == "Auto" or t.method not in TINY,
        ),
        Rule(
            None,
            "method TRM uses no TRL: its own settings stand in training.trm; remove extraArgs",
            lambda t: METHODS[t.method].configuration is not None or not t.extra_args,
        ),
        Rule(
            f"({one_of(REWARDED)}) == has(self.rewards)",
            sentence(
                REWARDED,
                "{methods} need{s} training.rewards (what a response is rewarded for), and no other method takes them",
            ),
            lambda t: (t.method in REWARDED) == (t.rewards is not None),
            about=_METHOD,
        ),
        Rule(
            f"({one_of(TAUGHT)}) == has(self.teacher)",
            sentence(
                TAUGHT,
                "{methods} need{s} training.teacher (whose probabilities are learned), and no other method takes one",
            ),
            lambda t: (t.method in TAUGHT) == (t.teacher is not None),
            about=_METHOD,
        ),
    )

    method: MethodName = Field(
        "SFT", description=" ".join(f"{name}: {method.told}" for name, method in METHODS.items())
    )
    max_steps: int | None = Field(None, ge=1, le=100_000_000, description="Optimizer steps in total.")
    num_train_epochs: float | None = Field(
        None, gt=0, le=100_000, description="Passes over the training data. Without it and without maxSteps: 1."
    )
    per_device_train_batch_size: int = Field(
        8,
        ge=1,
        le=65536,
        description="Sequences per device and forward pass. With method TRM, of all processes together.",
    )
    per_device_eval_batch_size: int = Field(8, ge=1, le=65536, description="The same during evaluation.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=65536, description="Forward passes per optimizer step.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description=f"Peak learning rate. Default: {default_rates()}; ten times that with LoRA.",
    )
    lr_scheduler_type: Literal[SCHEDULERS] = Field("linear", description="Course of the learning rate.")  # type: ignore[valid-type]
    warmup_steps: float = Field(0, ge=0, description="Warm-up: a number of steps, or below 1 a share of all steps.")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, le=1000, description="Gradients are clipped to this norm; 0 turns it off.")
    max_length: int = Field(
        1024,
        ge=8,
        le=1_048_576,
        description="Tokens per sequence. Longer plain text is split, longer prompts and conversations lose their end. "
        "PPO, GRPO, RLOO: prompt and response together.",
    )
    packing: bool = Field(
        True,
        description="Put several short examples into one sequence. Attention never crosses from one into the next. "
        "Pairs (DPO, ORPO, RewardModel), judged answers (KTO) and prompts (PPO, GRPO, RLOO) are never packed.",
    )
    optim: str = Field(
        "adamw_torch",
        max_length=63,
        pattern=r"^[a-z0-9_]+$",
        description="Optimizer, by its transformers name; or "
        "muon: torch's, for the matrices of linear layers, beside AdamW for the rest.",
    )
    precision: Literal["Auto", "FP32", "BF16", "FP16"] = Field(
        "Auto", description="Auto: BF16 where the hardware computes in it, else FP16 on a GPU, else FP32."
    )
    attention: Literal["Auto", "FlashAttention2", "SDPA", "Eager"] = Field(
        "Auto",
        description="How attention is computed. Auto: as transformers chooses for the model, most often SDPA. FlashAttention2 needs a GPU, "
        "BF16 or FP16, and flash_attn in the image.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, about a third more time."
    )
    logging_steps: int = Field(10, ge=1, le=1_000_000, description="A log line every so many steps.")
    eval_steps: int | None = Field(
        None, ge=1, le=100_000_000, description="Evaluate on the Eval split every so many steps during training."
    )
    neftune_noise_alpha: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="NEFTune: noise of this size on the embeddings while training; 5 is usual.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="End before maxSteps when evaluations get no better."
    )
    seed: int = Field(42, ge=0, le=2147483647, description="Seed of weights, order and dropout.")
    trm: TrmTraining | None = Field(None, description="What only method TRM has; absent means its defaults.")
    rewards: list[Reward] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="What answers are rewarded for with methods PPO, GRPO and RLOO; the scores are added.",
    )
    callbacks: list[CallbackName] = Field(
        default_factory=list,
        max_length=8,
        description="Classes of transformers' TrainerCallback, as module:Class, from spec.storage.workspace or from the image. They see "
        "and steer the loop of the language models; what one raises ends the run as InvalidConfig.",
    )
    teacher: Teacher | None = Field(None, description="Whose probabilities are learned with method Distillation.")
    extra_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Any further argument of TRL's configuration class of the method (SFTConfig, DPOConfig, ORPOConfig, "
        "RewardConfig, KTOConfig; "
        "for PPO, GRPO, RLOO and Distillation the trainer's own), by its own name; names and types are checked against it.",
        json_schema_extra=opaque,
    )


def divides_into_groups(training: Training) -> bool:
    """Whether a step has whole groups of answers. Of what is no number, the trainer says so."""
    group = training.extra_args.get("num_generations", METHODS[training.method].group)
    at_once = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return training.method not in GROUPING or not isinstance(group, int) or group < 1 or at_once % group == 0


def stopping_metric(training: Training) -> str:
    """What earlyStopping looks at."""
    asked = training.early_stopping.metric if training.early_stopping is not None else None
    return str(asked or METHODS[training.method].stops_by[0])


class Checkpoints(ApiModel):
    """When a checkpoint is written and how many are kept. Resuming after a restart needs no setting: it always happens."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            r"!has(self.resumeFrom) || !self.resumeFrom.matches('(^|/)\\.\\.(/|$)')",
            "checkpoints.resumeFrom leaves the volume: give the name of a run, or a path without ..",
            lambda c: ".." not in c.resume_from.split("/"),
        ),
    )

    every_steps: int = Field(500, ge=1, le=100_000_000, description="A checkpoint every so many optimizer steps.")
    every_minutes: float = Field(10, gt=0, le=10_080, description="And at the latest after so many minutes.")
    keep_last: int = Field(3, ge=1, le=1000, description="How many are kept; older ones are deleted.")
    keep_best: bool = Field(
        False,
        description="Also save whenever an evaluation (evalSteps) gives the lowest loss so far, and keep that checkpoint besides.",
    )
    max_age_days: float | None = Field(
        None, gt=0, le=36500, description="Of those kept, delete what is older; the newest and the best stay."
    )
    resume_from: str = Field(
        "",
        max_length=512,
        description="Start from another run's newest checkpoint: that run's name, or a path on the same volume.",
    )
