"""Records that a step sends while it runs, and the one it leaves behind.

`ProgressRecord` is pushed to the operator's receiver and may be lost; `FinalRecord` stands in the termination message
of the container, is read back from the pod and is what counts. Both tolerate fields they do not know, so that a newer
trainer image works under an older operator.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

RECORD_VERSION = 1
REDUCTIONS = "outOfMemoryReductions"
"""Key in `effective`: what was given up to fit into the device's memory, oldest first. The operator makes Events of it."""
REDUCTIONS_SEPARATOR = "; "


class Record(BaseModel):
    """Base: camelCase on the wire, unknown fields ignored, NaN and infinity allowed (sent as null)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_json(self) -> str:
        """Compact JSON without empty fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class CheckpointRecord(Record):
    """A committed checkpoint. `path` is relative to the checkpoint volume, `time` RFC 3339."""

    step: int = Field(ge=0)
    path: str = Field("", max_length=1024)
    time: str | None = None
    bytes: int | None = None


class ProgressRecord(Record):
    """What a step is doing now. `sequence` grows within an attempt, so that a late record never overwrites a newer one."""

    version: int = RECORD_VERSION
    run_uid: str = Field(max_length=64)
    step: str = Field(max_length=63)
    attempt: int = Field(ge=1)
    sequence: int = Field(ge=0)
    time: str = Field(max_length=64)
    phase: str | None = Field(None, max_length=32)
    first_step: int | None = Field(None, ge=0)
    """The optimizer step that this attempt went on from."""
    step_number: int | None = Field(None, ge=0)
    total_steps: int | None = Field(None, ge=0)
    epoch: float | None = None
    percentage: float | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: float | None = Field(None, ge=0)
    metrics: dict[str, float | None] = Field(default_factory=dict, max_length=64)
    checkpoint: CheckpointRecord | None = None
    effective: dict[str, Any] | None = Field(None, max_length=64)
    mlflow_run_id: str | None = Field(None, max_length=64)
    message: str | None = Field(None, max_length=1024)


class DatasetSource(Record):
    """How many records of one entry of spec.datasets are used."""

    name: str = Field(max_length=63)
    records: int = Field(ge=0)


class DatasetRecord(Record):
    """What the prepare step made."""

    digest: str | None = Field(None, max_length=128)
    records: int | None = None
    tokens: int | None = None
    splits: dict[str, int] = Field(default_factory=dict)
    sources: list[DatasetSource] = Field(default_factory=list, max_length=32)


class FinalRecord(Record):
    """The end of a step, at most TERMINATION_LOG_LIMIT bytes as JSON."""

    version: int = RECORD_VERSION
    step: str
    attempt: int = 1
    outcome: Literal["Succeeded", "Resume", "Failed"]
    reason: str | None = None
    message: str | None = None
    hint: str | None = None
    first_step: int | None = None
    step_number: int | None = None
    total_steps: int | None = None
    percentage: float | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)
    checkpoint: CheckpointRecord | None = None
    dataset: DatasetRecord | None = None
    evaluation: dict[str, Any] | None = None
    effective: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    timings: dict[str, float] | None = None
    mlflow_run_id: str | None = Field(None, max_length=64)
    last_log_lines: list[str] = Field(default_factory=list)

    def fit(self, limit: int) -> str:
        """JSON of at most `limit` bytes: the log lines go first, then the ends of long texts; numbers stay."""
        record = self
        for lines in range(len(self.last_log_lines), -1, -1):
            record = self.model_copy(update={"last_log_lines": self.last_log_lines[:lines] if lines else []})
            text = record.to_json()
            if len(text.encode()) <= limit:
                return text
        for keep in (1500, 800, 300, 100):
            shorter = {f: v[:keep] for f in ("message", "hint") if (v := getattr(self, f))}
            text = record.model_copy(update=shorter).to_json()
            if len(text.encode()) <= limit:
                return text
        bare = record.model_copy(
            update={
                "metrics": {},
                "effective": None,
                "provenance": None,
                "timings": None,
                "evaluation": None,
                **shorter,
            }
        )
        return bare.to_json()
