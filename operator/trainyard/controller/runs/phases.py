"""What the operator has to know of phases: how far the whole is, and whose checkpoint the newest one is.

Everything else about them is a matter of order: each phase is a step like any other, with Jobs and attempts of its own.
"""

from collections.abc import Sequence

from trainyard.api import names
from trainyard.api.progress import CheckpointRecord
from trainyard.api.run.status import CheckpointStatus, StepStatus
from trainyard.api.steps import phase_of, train_step
from trainyard.controller.manifests.metadata import RunRef


def reached(step: str, checkpoint: CheckpointStatus | CheckpointRecord | None) -> int:
    """The optimizer step that the newest checkpoint lets a training go on from; 0 where it is of another phase."""
    phase = phase_of(step)
    if checkpoint is None or (phase is not None and f"/{names.PHASES_DIR}/{phase}/" not in checkpoint.path):
        return 0
    return checkpoint.step


def method_now(run: RunRef, phase: str | None) -> str | None:
    """The method of the phase that is trained, else of the one that was trained last or is the only one."""
    trainings = run.trainings
    one = trainings[phase or [*trainings][-1]] if trainings else run.spec.training
    return one.method if one else None


def overall_percentage(run: RunRef, steps: Sequence[StepStatus], step: str, percentage: float) -> int:
    """How much of all trainings is done, when `step` is done to so many percent.

    Phases count by the seconds that are expected of them where the spec says so of each, by their optimizer steps where it tells
    these for each, else all the same.
    """
    trainings = run.trainings
    if len(trainings) < 2:
        return int(percentage)
    expected = {train_step(p.name): p.expected_duration_seconds for p in run.spec.phases or ()}
    hints = [run.spec.model_copy(update={"training": t}).total_steps_hint() for t in trainings.values()]
    weights = {train_step(n): h for n, h in zip(trainings, hints, strict=True) if h}
    if all(expected.get(train_step(n)) for n in trainings):
        weights = {train_step(n): expected[train_step(n)] or 0 for n in trainings}
    elif len(weights) < len(trainings):
        weights = {train_step(n): 1 for n in trainings}
    done = sum(weights[s.name] for s in steps if s.state == "Succeeded" and s.name in weights and s.name != step)
    return int((done * 100 + weights.get(step, 0) * percentage) / sum(weights.values()))
