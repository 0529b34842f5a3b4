"""The lab's words: points of its metrics and its alerts, from a body to our own records and back. Pure.

The lab's trainer posts a batch of points, each with what it has measured; `train_loss` is what the records call `loss`. Fields
that are not known pass unread, because its trainer sends more of them from version to version.
"""

import math
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from trainyard.api.bounds import LARGEST, Moment, ShortText
from trainyard.api.progress import ProgressRecord
from trainyard.api.run.notifications import AlertType
from trainyard.controller.reports.formats import Refusal, parsed, validated
from trainyard.controller.reports.history import Curves, Point

BATCH = 1000
"""Points of one post."""
NAMES = {
    "train_loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "samples_per_second": "samples_per_second",
    "gpu_memory_allocated_gb": "gpu_memory_allocated_gb",
    "gpu_utilization_percent": "gpu_utilization_percent",
    "perplexity": "perplexity",
}
"""The lab's names of what is measured, and ours."""
_GB = 2**30


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _whole(value: Any) -> Any:
    """A step counted in floats is one all the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float | None, AfterValidator(_finite)]
Epoch = Annotated[Annotated[float, Field(ge=0, le=LARGEST)] | None, AfterValidator(_finite)]


class LabPoint(BaseModel):
    """One entry of `metrics`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LARGEST)]
    epoch: Epoch = None
    train_loss: Number = None
    eval_loss: Number = None
    learning_rate: Number = None
    grad_norm: Number = None
    samples_per_second: Number = None
    gpu_memory_allocated_gb: Number = None
    gpu_utilization_percent: Number = None
    perplexity: Number = None
    timestamp: Moment | None = None

    def values(self) -> dict[str, float]:
        """What was measured, by our names."""
        measured = {ours: getattr(self, theirs) for theirs, ours in NAMES.items()}
        return {name: value for name, value in measured.items() if value is not None}


class LabReport(BaseModel):
    """The body of a post. A single point may stand without its list."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    job_id: str = Field(max_length=64)
    metrics: Annotated[list[LabPoint], BeforeValidator(lambda m: [m] if isinstance(m, dict) else m)] = Field(
        max_length=BATCH
    )


class LabAlert(BaseModel):
    """The body of an alert that a script sends.

    That a run starts, ends or runs out of memory the operator tells by itself, once, whatever the script's attempts do; what the
    script says of its end is added to that.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: AlertType
    job_id: str = Field(max_length=64)
    loss: Number = None
    error_message: ShortText | None = None
    error_type: ShortText | None = None

    def about_the_end(self) -> dict[str, Any]:
        """What the alert of the run's end is to say."""
        if self.type not in ("job_completed", "job_failed"):
            return {}
        return {"loss": self.loss, "error_message": self.error_message, "error_type": self.error_type}


def report_of(body: bytes, *, uid: str) -> LabReport:
    """Raises `Refusal`."""
    report = validated(LabReport, parsed(body))
    _is_own(report.job_id, uid)
    return report


def alert_of(body: bytes, *, uid: str) -> LabAlert:
    """Raises `Refusal`."""
    alert = validated(LabAlert, parsed(body))
    _is_own(alert.job_id, uid)
    return alert


def _is_own(job_id: str, uid: str) -> None:
    if job_id != uid:
        raise Refusal(401, "job_id is not the run that the token belongs to; JOB_ID and JOB_TOKEN have both")


def points_of(report: LabReport, *, now: datetime) -> list[Point]:
    """For the curves, oldest first."""
    found = []
    for said in report.metrics:
        values = said.values() | ({} if said.epoch is None else {"epoch": said.epoch})
        found.append(Point(_moment(said, now).timestamp(), said.step, values))
    return found


def record_of(report: LabReport, *, uid: str, step: str, attempt: int, now: datetime) -> ProgressRecord | None:
    """For the status: the newest point, with what only earlier ones of the batch have; None where there is none."""
    if not report.metrics:
        return None
    newest = report.metrics[-1]
    metrics: dict[str, float] = {}
    for said in report.metrics:
        metrics |= said.values()
    moment = _moment(newest, now)
    facts = {
        "runUid": uid,
        "step": step,
        "attempt": attempt,
        "sequence": int(moment.timestamp() * 1_000_000),  # two posts may come within a millisecond
        "time": moment.isoformat(),
        "phase": "train",
        "stepNumber": newest.step,
        "epoch": newest.epoch,
        "metrics": metrics,
    }
    return validated(ProgressRecord, facts)


def told_points(curves: Curves) -> list[dict[str, Any]]:
    """The curves as the lab reads them: every field in each point, null where it was not measured."""
    theirs = []
    for point in curves.points:
        values = dict(point.values)
        if "gpu_memory_allocated_gb" not in values and "memory_bytes" in values:
            values["gpu_memory_allocated_gb"] = round(values["memory_bytes"] / _GB, 3)
        told: dict[str, Any] = {"step": point.step, "epoch": values.get("epoch")}
        told |= {name: values.get(ours) for name, ours in NAMES.items()}
        moment = datetime.fromtimestamp(point.time, UTC)
        theirs.append(told | {"timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")})
    return theirs


def _moment(said: LabPoint, now: datetime) -> datetime:
    return now if said.timestamp is None else datetime.fromisoformat(said.timestamp)
