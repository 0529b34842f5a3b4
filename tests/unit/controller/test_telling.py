"""What the operator tells: metrics, logs, health."""

import json
import logging
import sys

import aiohttp
import pytest

from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller import logs
from trainyard.controller.health import Served, health_application, metrics_application
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
        metrics.status_written("ns", "alpha", old, new)
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


@pytest.fixture
async def answers():
    problems: dict[str, list[str]] = {"alive": [], "ready": []}
    metrics = Metrics()
    ports = [
        Served(
            health_application(alive=lambda: problems["alive"], ready=lambda: problems["ready"]),
            port=0,
            host="127.0.0.1",
        ),
        Served(metrics_application(metrics.registry), port=0, host="127.0.0.1"),
    ]
    health, scrape = [await port.start() for port in ports]
    async with aiohttp.ClientSession() as http:

        async def get(path: str) -> tuple[int, str]:
            port = scrape if path == "/metrics" else health
            async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        yield problems, get
    for port in ports:
        await port.stop()


async def test_health_names_the_problem(answers):
    problems, get = answers
    assert [await get("/healthz"), await get("/readyz")] == [(200, "ok\n"), (200, "ok\n")]
    problems["ready"].append("the lease is not held by this process")
    assert await get("/healthz") == (200, "ok\n")
    assert await get("/readyz") == (503, "the lease is not held by this process\n")
    problems["alive"].append("a reconcile has been running for 601 s")
    assert await get("/healthz") == (503, "a reconcile has been running for 601 s\n")


async def test_metrics_are_served_as_text(answers):
    _, get = answers
    code, text = await get("/metrics")
    assert code == 200
    assert "trainyard_build_info{" in text
    assert "process_resident_memory_bytes" in text


def formatted(formatter: logging.Formatter, message: str, *args, extra: dict | None = None, error: bool = False) -> str:
    logger = logging.getLogger("trainyard.test")
    trace = None
    if error:
        try:
            raise KeyError("missing")
        except KeyError:
            trace = sys.exc_info()
    return formatter.format(
        logger.makeRecord("trainyard.test", logging.INFO, "f", 1, message, args, trace, extra=extra)
    )


def test_a_json_line_has_the_run_and_the_callers_fields():
    with logs.about(namespace="ns", run="alpha"):
        line = json.loads(formatted(logs.JsonFormatter(), "job %s made", "a-1", extra={"job": "a-1"}))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "trainyard.test",
        "message": "job a-1 made",
        "namespace": "ns",
        "run": "alpha",
        "job": "a-1",
    }
    assert "run" not in json.loads(formatted(logs.JsonFormatter(), "later"))


def test_a_traceback_stays_in_its_line():
    line = formatted(logs.JsonFormatter(), "failed", error=True)
    assert "\n" not in line
    assert "KeyError: 'missing'" in json.loads(line)["exception"]


def test_text_is_for_people():
    line = formatted(logs.TextFormatter(), "job made", extra={"run": "alpha"})
    assert line.endswith("INFO    job made  run=alpha")
