"""The printed columns: `status.summary`, made of the rest of the status for `kubectl get`."""

from trainyard.api.conditions import State
from trainyard.api.duration import duration
from trainyard.api.run.status import StepStatus, Summary, TrainerStatus, TrainingRunStatus
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.runs.phases import method_now
from trainyard.controller.runs.told import limit_of


def summarise(run: RunRef, status: TrainingRunStatus, state: State) -> Summary:
    """The printed columns."""
    spec = run.spec
    trainer = status.trainer_status or TrainerStatus()
    total = trainer.total_steps or (None if spec.phases else spec.total_steps_hint())
    loss = next((m.value for m in trainer.metrics or () if m.name == "loss"), None)
    live = state in (State.TRAINING, State.EVALUATING, State.PREPARING, State.VALIDATING)
    remaining = trainer.estimated_remaining_seconds
    return Summary(
        method=_method(run, status.current_phase),
        model=_model(spec),
        progress=None if trainer.progress_percentage is None else f"{trainer.progress_percentage}%",
        step=None if trainer.step is None else f"{trainer.step}/{total}" if total else str(trainer.step),
        loss=_short(loss),
        eta=duration(remaining) if live and remaining is not None else None,
        node=_node(status.steps or []),
        step_name=status.current_step,
    )


def _method(run: RunRef, phase: str | None) -> str | None:
    if run.spec.command:
        return "Script"
    return "Dataset" if run.spec.mode == "Dataset" else method_now(run, phase)


def _model(spec: TrainingRunSpec) -> str | None:
    if spec.model is None:
        return None
    if spec.model.trm is not None:
        return f"trm ({spec.model.trm.mixer})"
    if spec.model.scratch is not None:
        return f"{spec.model.scratch.architecture} (scratch)"
    uri = (spec.model.storage_uri or "").partition("://")[2]
    return uri.rstrip("/").rpartition("/")[2][:80]


def _short(loss: str | None) -> str | None:
    """Four decimals; of a training that diverges, the size."""
    if loss is None:
        return None
    try:
        value = float(loss)
    except ValueError:
        return loss[: limit_of(Summary, "loss")]
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def _node(steps: list[StepStatus]) -> str | None:
    nodes = [a.node for s in steps for a in s.attempts or () if a.node]
    return nodes[-1] if nodes else None
