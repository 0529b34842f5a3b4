"""Metrics: what is counted, and when."""

from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.kube import errors
from trainyard.controller.kube.errors import Request
from trainyard.controller.metrics import Metrics


def status(*attempts: dict, state: str = "Training") -> TrainingRunStatus:
    step = {"name": "train", "state": "Running", "attempts": list(attempts)}
    return TrainingRunStatus.model_validate({"state": state, "steps": [step]})


def attempt(number: int = 1, state: str = "Running", **fields) -> dict:
    return {"number": number, "state": state, "startTime": "2026-01-01T00:00:00Z"} | fields


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_an_attempt_is_counted_when_it_ends_and_only_then():
    metrics = Metrics()
    running = status(attempt())
    failed = attempt(1, "Failed", reason="Killed", counted=True, completionTime="2026-01-01T00:01:30Z")
    ended = status(failed, attempt(2))
    for old, new in ((TrainingRunStatus(), running), (running, ended), (ended, ended)):
        metrics.status_written("ns", "alpha", old, new, None)
    labels = {"step": "train", "state": "Failed", "reason": "Killed", "counted": "true"}
    assert value(metrics, "trainyard_attempts_total", **labels) == 1
    assert value(metrics, "trainyard_attempt_duration_seconds_sum", step="train", state="Failed") == 90
    assert value(metrics, "trainyard_runs", state="Training") == 1


def test_runs_are_counted_by_state():
    metrics = Metrics()
    for number in range(3):
        metrics.run_seen("ns", f"run-{number}", "Succeeded")
    metrics.run_seen("ns", "run-0", "Failed")
    metrics.run_gone("ns", "run-1")
    metrics.run_gone("ns", "never-known")
    assert value(metrics, "trainyard_runs", state="Succeeded") == 1
    metrics.only_runs({("ns", "run-0")})
    assert value(metrics, "trainyard_runs", state="Succeeded") is None
    assert value(metrics, "trainyard_runs", state="Failed") == 1


def test_looks_are_counted_by_how_they_ended():
    metrics = Metrics()
    request = Request("get", "jobs", "ns", "a")
    for error in (None, errors.Transient("down", request=request), KeyError("bug")):
        metrics.reconciled(seconds=0.02, error=error)
    for result in ("ok", "transient", "error"):
        assert value(metrics, "trainyard_reconciles_total", result=result) == 1


def test_names_of_phases_and_unknown_reasons_make_no_series_of_their_own():
    metrics = Metrics()
    for number in range(200):
        ended = attempt(1, "Failed", reason=f"reason-{number}", completionTime="2026-01-01T00:01:30Z")
        step = {"name": f"train-phase-{number}", "state": "Failed", "attempts": [ended]}
        new = TrainingRunStatus.model_validate({"state": "Failed", "steps": [step]})
        metrics.status_written("ns", f"run-{number}", TrainingRunStatus(), new, None)
        metrics.run_gone("ns", f"run-{number}")
    labels = {"step": "train", "state": "Failed", "reason": "Other", "counted": "false"}
    assert value(metrics, "trainyard_attempts_total", **labels) == 200
    series = [s for family in metrics.registry.collect() for s in family.samples if s.name.startswith("trainyard_")]
    assert len([s for s in series if "attempt" in s.name]) < 30
    assert [s for s in series if s.name == "trainyard_runs"] == [], "a run that is gone leaves nothing"
