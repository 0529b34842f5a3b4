"""From a body to a record: our own format, and the one that transformers' callback sends. Pure.

Whatever bytes come, there is a record or a `Refusal` that names the field; nothing else is raised.
"""

import json
import math
import re
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from trainyard.api.progress import ProgressRecord
from trainyard.api.steps import STEP_TRAIN, STEPS
from trainyard.api.texts import one_line
from trainyard.controller.reports.progress_store import is_step

FAULTS_TOLD = 10

_ATTEMPT = re.compile(r"[1-9][0-9]{0,14}")
_UID = re.compile(rb'"runUid"\s*:\s*"([A-Za-z0-9._-]{1,64})"')

_DECODER = json.JSONDecoder(parse_constant=lambda name: None)
"""NaN and infinity are no JSON and nothing that a status can hold: they count as absent."""

M = TypeVar("M", bound=BaseModel)


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _KubeflowMetric(BaseModel):
    name: str = Field(max_length=253)
    value: str = Field(max_length=64)


class _KubeflowStatus(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    progress_percentage: float | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: float | None = Field(None, ge=0)
    metrics: list[_KubeflowMetric] = Field(default_factory=list, max_length=64)
    last_updated_time: datetime


class _KubeflowReport(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    trainer_status: _KubeflowStatus


def uid_in(head: bytes) -> str | None:
    """The uid that the beginning of a body names."""
    found = _UID.search(head)
    return found.group(1).decode() if found else None


def own_record(body: bytes) -> ProgressRecord:
    """Our own format."""
    record = validated(ProgressRecord, parsed(body))
    if not is_step(record.step):
        raise Refusal(422, f"step is {record.step!r}; it must be one of {', '.join(STEPS)}")
    return record


def kubeflow_record(body: bytes, *, uid: str, step: str, attempt: str) -> ProgressRecord:
    """What the callback says, and what the address says that it was given."""
    status = validated(_KubeflowReport, parsed(body)).trainer_status
    if not is_step(step) or not _ATTEMPT.fullmatch(attempt):
        query = one_line(f"step={step!r} and attempt={attempt!r}", limit=160)
        raise Refusal(422, f"the URL's query has {query}; leave the URL as it was given")
    told = status.last_updated_time
    moment = told if told.tzinfo else told.replace(tzinfo=UTC)
    metrics = {m.name: _number(m.value) for m in status.metrics}
    total, done, epoch = (metrics.pop(name, None) for name in ("total_steps", "current_step", "current_epoch"))
    facts = {
        "runUid": uid,
        "step": step,
        "attempt": int(attempt),
        "sequence": int(moment.timestamp() * 1_000_000),  # two posts may come within a millisecond
        "time": moment.isoformat(),
        "phase": STEP_TRAIN,
        "stepNumber": _whole(done),
        "totalSteps": _whole(total),
        "epoch": epoch,
        "percentage": status.progress_percentage,
        "estimatedRemainingSeconds": status.estimated_remaining_seconds,
        "metrics": metrics,
    }
    return validated(ProgressRecord, facts)


def parsed(body: bytes) -> Any:
    """JSON, with NaN and infinity as absent. Raises `Refusal`."""
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise Refusal(422, "the body is not JSON") from None


def validated(model: type[M], facts: Any) -> M:
    """Raises `Refusal` that names what is wrong."""
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:FAULTS_TOLD]
        raise Refusal(422, "; ".join(f"{_place(f['loc'])}: {f['msg']}" for f in faults)) from None


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(one_line(str(part), limit=64) for part in loc) or "the body"


def _number(text: str) -> float | None:
    """A metric's value; NaN, infinity and words cannot stand in a status and count as absent."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def attempt_in(query: str) -> int | None:
    """The number of an attempt, as it stands in an address."""
    return int(query) if _ATTEMPT.fullmatch(query) else None


def _whole(value: float | None) -> int | None:
    return None if value is None or value < 0 else int(value)
