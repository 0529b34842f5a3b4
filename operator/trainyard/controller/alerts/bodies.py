"""What is sent: one alert in the words of each kind of receiver. Pure.

The plain webhook gets the lab's body. The others get one message for people. No address with a query and no text of more than
a few lines leaves here, wherever it came from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.api.addresses import told
from trainyard.api.conditions import Reason
from trainyard.api.run.notifications import AlertType
from trainyard.api.run.owner import model_name, user_id
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.texts import one_line
from trainyard.controller.alerts.edges import Edge
from trainyard.controller.clock import rfc3339
from trainyard.controller.manifests.metadata import RunRef
from trainyard.controller.runs.views import parse_time

TEXT_LIMIT = 1000
ALERTMANAGER_PATH = "/api/v2/alerts"
_TITLES: dict[AlertType, str] = {
    "job_started": "training has started",
    "job_completed": "completed",
    "job_failed": "failed",
    "job_cancelled": "cancelled",
    "gpu_oom": "out of device memory",
    "timeout_warning": "close to its deadline",
}
_BAD = frozenset({"job_failed", "gpu_oom", "timeout_warning"})
_CUDA_OOM = "CUDA_OOM"
"""The lab's word for memory of the device."""


@dataclass(frozen=True)
class Alert:
    """One thing that has happened, with the numbers of that moment. Field names up to `error_type` are the lab's."""

    type: AlertType
    job_id: str
    user_id: str
    model_name: str
    status: str
    progress: float | None = None
    current_step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    duration: int | None = None
    """Milliseconds."""
    error_message: str | None = None
    error_type: str | None = None
    namespace: str = ""
    name: str = ""
    key: str = ""
    """The same whenever this alert is sent."""
    time: str = ""

    @property
    def title(self) -> str:
        """One short line."""
        return f"{self.namespace}/{self.name} {_TITLES[self.type]}"


@dataclass(frozen=True)
class Posted:
    """The parts of a request that depend on the kind of receiver."""

    body: bytes
    headers: Mapping[str, str]
    path: str = ""
    """Added to the address where it does not end with it."""


def alert(
    run: RunRef, status: TrainingRunStatus, edge: Edge, *, now: datetime, said: Mapping[str, Any] | None = None
) -> Alert:
    """`said` is what the run's own script has said about its end."""
    said = said or {}
    trainer, end = status.trainer_status, parse_time(status.completion_time)
    start = parse_time(status.start_time)
    error, kind = _error(status, edge)
    loss = next((m.value for m in (trainer.metrics if trainer else None) or () if m.name == "loss"), None)
    return Alert(
        type=edge.type,
        job_id=run.uid,
        user_id=user_id(run.labels, run.namespace),
        model_name=model_name(run.spec),
        status={"job_completed": "completed", "job_failed": "failed", "job_cancelled": "failed"}.get(
            edge.type, "running"
        ),
        progress=float(trainer.progress_percentage) if trainer and trainer.progress_percentage is not None else None,
        current_step=trainer.step if trainer else None,
        total_steps=trainer.total_steps if trainer else None,
        loss=said.get("loss") if said.get("loss") is not None else _number(loss),
        duration=None if start is None else max(0, round(((end or now) - start).total_seconds() * 1000)),
        error_message=_clean(said.get("error_message") or error) if error else None,
        error_type=(said.get("error_type") or kind) if error else None,
        namespace=run.namespace,
        name=run.name,
        key=f"{run.uid}/{edge.name}",
        time=rfc3339(now),
    )


def posted(kind: str, alert: Alert) -> Posted:
    """For a receiver of this kind."""
    match kind:
        case "Slack":
            return _json({"text": _escaped(_message(alert))})
        case "Discord":
            return _json({"content": _message(alert), "allowed_mentions": {"parse": []}})
        case "Ntfy":
            priority = "high" if alert.type in _BAD else "default"
            headers = {
                "Title": _ascii(alert.title),
                "Priority": priority,
                "Tags": "warning" if alert.type in _BAD else "train",
            }
            return Posted(_message(alert).encode(), {"Content-Type": "text/plain; charset=utf-8", **headers})
        case "Alertmanager":
            return _json([_alertmanager(alert)], path=ALERTMANAGER_PATH)
    return _json(_lab(alert))


def _lab(alert: Alert) -> dict[str, Any]:
    fields = (
        "type", "job_id", "user_id", "model_name", "status", "progress", "current_step", "total_steps", "loss", "duration",
        "error_message", "error_type",
    )  # fmt: skip
    found = {name: getattr(alert, name) for name in fields}
    return {name: value for name, value in found.items() if value is not None}


def _alertmanager(alert: Alert) -> dict[str, Any]:
    severity = "warning" if alert.type in _BAD else "info"
    labels = {
        "alertname": f"Trainyard_{alert.type}",
        "severity": severity,
        "namespace": alert.namespace,
        "run": alert.name,
    }
    annotations = {"summary": alert.title, "description": _message(alert)}
    return {"labels": labels | {"uid": alert.job_id}, "annotations": annotations, "startsAt": alert.time}


def _message(alert: Alert) -> str:
    facts = [f"model {alert.model_name}"] if alert.model_name else []
    if alert.current_step is not None:
        facts.append(f"step {alert.current_step}" + (f" of {alert.total_steps}" if alert.total_steps else ""))
    if alert.loss is not None:
        facts.append(f"loss {alert.loss:g}")
    if alert.duration is not None:
        facts.append(f"after {alert.duration // 1000} s")
    text = f"{alert.title} ({', '.join(facts)})" if facts else alert.title
    return _clean(f"{text}: {alert.error_message}" if alert.error_message else text)


def _error(status: TrainingRunStatus, edge: Edge) -> tuple[str, str]:
    """What is wrong, and the word for it; empty where nothing is."""
    if edge.type == "gpu_oom":
        return edge.message, _CUDA_OOM
    if edge.type == "timeout_warning":
        return edge.message, Reason.DEADLINE_EXCEEDED.value
    if edge.type in ("job_failed", "job_cancelled"):
        reason = status.failure.reason if status.failure else Reason.ERROR.value
        message = status.failure.message if status.failure else edge.message
        return message or reason, _CUDA_OOM if reason == Reason.DEVICE_OUT_OF_MEMORY else reason
    return "", ""


def _clean(text: str) -> str:
    return one_line(told(text), limit=TEXT_LIMIT)


def _escaped(text: str) -> str:
    """For Slack, where these three begin links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def _json(value: Any, *, path: str = "") -> Posted:
    return Posted(json.dumps(value, ensure_ascii=False).encode(), {"Content-Type": "application/json"}, path)
