"""The steps of a run: one row each, and what follows from a step's name.

A step is a Job. What differs between steps (how a run stands meanwhile, whether the pod gets GPUs, how many pods work on it)
is looked up here and nowhere decided anew. A run with phases has one training a phase, `train-<phase>`, and each of its exports is
a step `export-<name>`.
"""

from dataclasses import dataclass

from trainyard.api.conditions import Reason, State

STEP_PREPARE = "prepare"
STEP_VALIDATE = "validate"
STEP_TRAIN = "train"
STEP_EVALUATE = "evaluate"
STEP_EXPORT = "export"
STEP_PROMOTE = "promote"
STEP_ROLLBACK = "rollback"


@dataclass(frozen=True)
class Step:
    """What holds for every step of this name."""

    state: State
    """How the run stands while a pod of the step works."""
    reason: Reason
    verb: str
    """What the pod is doing, for people: `training on arcanine`."""
    help: str
    """What the step is for, in the trainer's own `--help`."""
    gets_devices: bool = False
    """Whether its pods get the GPUs of `spec.resources`."""
    several_pods: bool = False
    """Whether `spec.numNodes` pods work on it together."""


STEPS = {
    STEP_VALIDATE: Step(
        State.VALIDATING,
        Reason.VALIDATING,
        "checking the spec and the data",
        "check the spec and every record, estimate memory and time, and stop",
    ),
    STEP_PREPARE: Step(
        State.PREPARING, Reason.PREPARING, "preparing the data", "fetch and check the data, tokenise and pack it"
    ),
    STEP_TRAIN: Step(
        State.TRAINING,
        Reason.TRAINING,
        "training",
        "train on the prepared data, from the newest checkpoint if there is one",
        gets_devices=True,
        several_pods=True,
    ),
    STEP_EVALUATE: Step(
        State.EVALUATING, Reason.EVALUATING, "evaluating", "measure the trained model on the held-out data"
    ),
    STEP_EXPORT: Step(
        State.EXPORTING, Reason.EXPORTING, "sending the result", "send the result where one of spec.exports says"
    ),
    STEP_PROMOTE: Step(
        State.EXPORTING,
        Reason.EXPORTING,
        "promoting the result",
        "let aliases name the result, when all exports have ended",
    ),
    STEP_ROLLBACK: Step(
        State.EXPORTING,
        Reason.EXPORTING,
        "taking the promotion back",
        "let aliases and latest name what they named before this run",
    ),
}
"""In the order in which a run goes through them."""


def step_named(name: str) -> Step:
    """The row of a step; the trainings of phases share one, and so do exports.

    Raises:
        KeyError: no step has this name.
    """
    return STEPS[base_of(name)]


def base_of(name: str) -> str:
    """The name in STEPS: that of the step without its phase, or what it exports."""
    if is_train(name):
        return STEP_TRAIN
    return next((base for base in (STEP_EXPORT, STEP_ROLLBACK) if name.startswith(f"{base}-")), name)


def train_step(phase: str | None) -> str:
    """The step that trains a phase; without one, the training of a run without phases."""
    return STEP_TRAIN if phase is None else f"{STEP_TRAIN}-{phase}"


def is_train(step: str) -> bool:
    """Whether the step is a training: the only one, or one of several phases."""
    return step == STEP_TRAIN or step.startswith(f"{STEP_TRAIN}-")


def phase_of(step: str) -> str | None:
    """The phase that a step trains."""
    return step.removeprefix(f"{STEP_TRAIN}-") if step.startswith(f"{STEP_TRAIN}-") else None


def export_step(name: str) -> str:
    """The step that does an export."""
    return f"{STEP_EXPORT}-{name}"


def is_export(step: str) -> bool:
    """Whether the step is an export."""
    return step.startswith(f"{STEP_EXPORT}-")


def step_arguments(step: str) -> list[str]:
    """What the trainer is told on its command line to do a step."""
    base = base_of(step)
    if base in (STEP_EXPORT, STEP_ROLLBACK):
        return [base, "--name", step.removeprefix(f"{base}-")]
    phase = phase_of(step)
    return [step] if phase is None else [STEP_TRAIN, "--phase", phase]
