"""From the records of the pods to the status: numbers that move while a run is under way, and what its steps leave."""

from typing import Any

from trainyard.api import names
from trainyard.api.bounds import FACT_LENGTH
from trainyard.api.progress import CheckpointRecord, FinalRecord, ProgressRecord
from trainyard.api.run.status import (
    CheckpointStatus,
    StepStatus,
    TrainerStatus,
    TrainingRunStatus,
)
from trainyard.api.steps import STEP_EVALUATE, STEP_PREPARE, is_train, phase_of
from trainyard.api.texts import one_line
from trainyard.controller.clock import rfc3339
from trainyard.controller.manifests.storage import checkpoints_name
from trainyard.controller.runs import told
from trainyard.controller.runs.ledger import Ledger, last_attempt, restarts
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.phases import overall_percentage


def learn(seen: Observed, ledger: Ledger) -> TrainingRunStatus:
    """The old status with everything that Jobs, final records and progress have told since."""
    current = ledger.foremost
    status = seen.status.model_copy(
        update={
            "steps": list(ledger.steps),
            "restarts": restarts(ledger.steps),
            "restarts_count_towards_max": ledger.counted,
            "disruptions": ledger.disrupted or None,
            "current_step": current.name if current else None,
            "current_phase": phase_of(current.name) if current else None,
        }
    )
    if seen.deaf:
        return status
    if seen.progress is not None and _speaks_of_now(seen, ledger, seen.progress):
        status = _learn_progress(seen, status, seen.progress)
    for step, record in ledger.finals:
        status = _learn_final(seen, status, step, record)
    if _trained(ledger.steps) and not _trained(tuple(seen.status.steps or ())):
        # A script of one's own leaves no final record, and its last report may be a while old.
        trainer = status.trainer_status or TrainerStatus()
        status = status.model_copy(update={"trainer_status": trainer.model_copy(update=_TRAINED)})
    return _turn_the_page(seen, status)


_TRAINED = {"progress_percentage": 100, "estimated_remaining_seconds": 0, "phase": "done"}


def _trained(steps: tuple[StepStatus, ...]) -> bool:
    trainings = [s.state for s in steps if is_train(s.name)]
    return bool(trainings) and all(state == "Succeeded" for state in trainings)


def _turn_the_page(seen: Observed, status: TrainingRunStatus) -> TrainingRunStatus:
    """A new phase counts its steps from zero; what the one before it has reached is not its own."""
    before, now = seen.status.current_phase, status.current_phase
    if before is None or now is None or before == now:
        return status
    percentage = overall_percentage(seen.run, status.steps or (), str(status.current_step), 0.0)
    return status.model_copy(update={"trainer_status": TrainerStatus(progress_percentage=percentage)})


def _speaks_of_now(seen: Observed, ledger: Ledger, record: ProgressRecord) -> bool:
    """Whether the record is of an attempt that runs, or that ended since the last look.

    Of an attempt that was closed earlier it must not be taken again: the final record knew better.
    """
    for steps in (ledger.steps, seen.status.steps or ()):
        last = next((last_attempt(s) for s in steps if s.name == record.step), None)
        if last is not None and last.number == record.attempt and last.state == "Running":
            return True
    return False


def _learn_progress(seen: Observed, status: TrainingRunStatus, record: ProgressRecord) -> TrainingRunStatus:
    old = status.trainer_status or TrainerStatus()
    changes: dict[str, Any] = {"phase": record.phase, "last_updated_time": record.time}
    # Preparing and evaluating have a phase to show, but must not wipe out what the training has reached.
    if is_train(record.step):
        seconds = record.estimated_remaining_seconds
        known = {
            "progress_percentage": _overall(seen, status, record.step, record.percentage),
            "estimated_remaining_seconds": None if seconds is None else round(seconds),
            "step": record.step_number,
            "total_steps": record.total_steps,
            "epoch": None if record.epoch is None else f"{record.epoch:.2f}",
            "metrics": told.metrics(record.metrics),
        }
        changes |= {k: v for k, v in known.items() if v is not None}
    news: dict[str, Any] = {
        "trainer_status": old.model_copy(update=changes),
        "checkpoint": _newer(status.checkpoint, record.checkpoint),
        "mlflow_run_id": record.mlflow_run_id or status.mlflow_run_id,
    }
    if is_train(record.step) and record.effective:
        news["effective"] = told.words(record.effective)
    return status.model_copy(update=news)


def _learn_final(seen: Observed, status: TrainingRunStatus, step: str, record: FinalRecord) -> TrainingRunStatus:
    changes: dict[str, Any] = {
        "checkpoint": _newer(status.checkpoint, record.checkpoint),
        "mlflow_run_id": record.mlflow_run_id or status.mlflow_run_id,
    }
    if phase_of(step) is not None:
        facts = {"total_steps": record.total_steps, "dataset_digest": record.dataset.digest if record.dataset else None}
        known = {k: v for k, v in facts.items() if v is not None}
        changes["steps"] = [s.model_copy(update=known) if s.name == step else s for s in status.steps or ()]
    elif record.dataset is not None and not (seen.run.spec.phases and step == STEP_EVALUATE):
        changes["dataset"] = told.dataset(record.dataset)
    if record.evaluation is not None:
        changes["evaluation"] = told.evaluation(record.evaluation)
    if step == STEP_PREPARE and record.provenance:
        # The commit of the workspace; the image that trains is told by the training.
        changes["provenance"] = {**(status.provenance or {}), **told.words(record.provenance)}
    if is_train(step):
        changes |= {k: told.words(v) for k in ("effective", "provenance") if (v := getattr(record, k))}
        if "provenance" in changes:
            # An attempt that finds the training complete tells less of it than the one that did it.
            changes["provenance"] = {**(status.provenance or {}), **changes["provenance"]}
        if record.provenance and (image := _image(seen, step, record.attempt)):
            changes["provenance"]["image"] = one_line(image, limit=FACT_LENGTH)
        old = status.trainer_status or TrainerStatus()
        done: dict[str, Any] = {
            "step": record.step_number,
            "total_steps": record.total_steps,
            "progress_percentage": _overall(seen, status, step, record.percentage),
            "metrics": told.metrics(record.metrics),
        }
        done = {k: v for k, v in done.items() if v is not None}
        changes["trainer_status"] = old.model_copy(update=done | {"last_updated_time": rfc3339(seen.now)})
    return status.model_copy(update=changes)


def _overall(seen: Observed, status: TrainingRunStatus, step: str, percentage: float | None) -> int | None:
    return None if percentage is None else overall_percentage(seen.run, status.steps or (), step, percentage)


def _newer(old: CheckpointStatus | None, record: CheckpointRecord | None) -> CheckpointStatus | None:
    """The newer of two; one in another folder is of a later phase, because only what runs now is listened to."""
    if record is None or (old is not None and old.step >= record.step and _folder(old) == _folder(record)):
        return old
    return CheckpointStatus(step=record.step, path=record.path, time=record.time)


def _folder(checkpoint: CheckpointStatus | CheckpointRecord) -> str:
    return checkpoint.path.rpartition("/")[0]


def _image(seen: Observed, step: str, attempt: int) -> str | None:
    """The image that ran, by digest, as the node's runtime names it."""
    job = seen.job_of(step, attempt)
    pod = seen.pod_of(job) if job else None
    return pod.image_id.partition("://")[2] or pod.image_id if pod else None


def outputs(seen: Observed) -> dict[str, str]:
    """Where the results lie, for people and for other runs."""
    folder = names.work_dir(seen.run.name, seen.run.uid, mount="").lstrip("/")
    claim = checkpoints_name(seen.run)
    if seen.run.spec.mode == "Dataset":
        return {"claim": claim, "dataset": f"{folder}/dataset", "uri": f"pvc://{claim}/{folder}/dataset"}
    return {"claim": claim, "model": f"{folder}/model", "uri": f"pvc://{claim}/{folder}/model"}
