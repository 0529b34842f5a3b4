"""The steps of a run: what they are called, and what follows from the name."""

STEP_PREPARE = "prepare"
STEP_VALIDATE = "validate"
STEP_TRAIN = "train"
STEP_EVALUATE = "evaluate"


def train_step(phase: str | None) -> str:
    """The step that trains a phase; without one, the training of a run without phases."""
    return STEP_TRAIN if phase is None else f"{STEP_TRAIN}-{phase}"


def is_train(step: str) -> bool:
    """Whether the step is a training: the only one, or one of several phases."""
    return step == STEP_TRAIN or step.startswith(f"{STEP_TRAIN}-")


def phase_of(step: str) -> str | None:
    """The phase that a step trains."""
    return step.removeprefix(f"{STEP_TRAIN}-") if step.startswith(f"{STEP_TRAIN}-") else None


def step_arguments(step: str) -> list[str]:
    """What the trainer is told on its command line to do a step."""
    phase = phase_of(step)
    return [step] if phase is None else [STEP_TRAIN, "--phase", phase]
