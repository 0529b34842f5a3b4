"""Records that a step sends while it runs, and the one it leaves behind.

`ProgressRecord` is pushed to the operator's receiver and may be lost; `FinalRecord` stands in the termination message
of the container, is read back from the pod and is what counts. Both tolerate fields they do not know, so that a newer
trainer image works under an older operator.

A record is written by whatever runs in a container, and what it says ends in a status, in Events and on terminals. So
this is the one place that bounds it: texts for people are cleaned and cut, anything else that is out of its bounds is a
fault. A progress record with a fault is refused, and its sender told the field; the next one is seconds away. A final
record is the only one there will ever be: `FinalRecord.lenient` drops what is wrong in it and keeps the rest.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from trainyard.api.bounds import (
    ENTRIES,
    LARGEST,
    Amount,
    Facts,
    GateText,
    LogLines,
    LongText,
    Metrics,
    MlflowRun,
    Moment,
    Name,
    Number,
    Percentage,
    Reason,
    RunUid,
    ShortText,
    StepName,
    VolumePath,
    Whole,
)

RECORD_VERSION = 1
REDUCTIONS = "outOfMemoryReductions"
"""Key in `effective`: what was given up to fit into the device's memory, oldest first. The operator makes Events of it."""
REDUCTIONS_SEPARATOR = "; "


class Record(BaseModel):
    """Base: camelCase on the wire, unknown fields ignored, NaN and infinity taken as absent where a number may be."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_json(self) -> str:
        """Compact JSON without empty fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @classmethod
    def lenient(cls, told: str | Mapping[str, Any]) -> Self | None:
        """The record without what is wrong in it. None where nothing is left: no record, or one without what it needs.

        `told` is the text of a record, or its fields.
        """
        facts = _parsed(told) if isinstance(told, str) else dict(told)
        if facts is None:
            return None
        known = {spelled: name for name in cls.model_fields for spelled in (name, to_camel(name))}
        facts = {to_camel(known[key]): value for key, value in facts.items() if key in known}
        while True:
            try:
                return cls.model_validate(facts)
            except ValidationError as error:
                fewer = _without(facts, error.errors(include_url=False, include_input=False))
            if fewer == facts:
                return None
            facts = fewer


class CheckpointRecord(Record):
    """A committed checkpoint. `path` is relative to the checkpoint volume."""

    step: Whole
    path: VolumePath = ""
    time: Moment | None = None
    bytes: Whole | None = None


class ProgressRecord(Record):
    """What a step is doing now. `sequence` grows within an attempt, so that a late record never overwrites a newer one."""

    version: Whole = RECORD_VERSION
    run_uid: RunUid
    step: StepName
    attempt: int = Field(ge=1, le=LARGEST)
    sequence: Whole
    time: Moment
    phase: Annotated[Name, Field(max_length=32)] | None = None
    first_step: Whole | None = None
    """The optimizer step that this attempt went on from."""
    step_number: Whole | None = None
    total_steps: Whole | None = None
    epoch: Amount | None = None
    percentage: Percentage | None = None
    estimated_remaining_seconds: Amount | None = None
    metrics: Metrics = Field(default_factory=dict)
    checkpoint: CheckpointRecord | None = None
    effective: Facts | None = None
    mlflow_run_id: MlflowRun | None = None
    message: ShortText | None = None


def merged_metrics(earlier: Mapping[str, float | None], newer: Mapping[str, float | None]) -> dict[str, float | None]:
    """The newer metrics and what only the earlier ones have; where that is too much, those longest untold go."""
    only_earlier = [name for name in earlier if name not in newer]
    kept = only_earlier[max(0, len(only_earlier) + len(newer) - ENTRIES) :]
    return {name: earlier[name] for name in kept} | dict(newer)


class DatasetSource(Record):
    """How many records of one entry of spec.datasets are used; where a trace store has built it, what it is called there."""

    name: Annotated[Name, Field(max_length=63)]
    records: Whole
    key: Name | None = None
    build_id: Name | None = None
    trace_count: Whole | None = None
    manifest_path: Annotated[Name, Field(max_length=1024)] | None = None


class DatasetRecord(Record):
    """What the prepare step made."""

    digest: Annotated[Name, Field(max_length=128)] | None = None
    records: Whole | None = None
    tokens: Whole | None = None
    splits: dict[Name, Whole] = Field(default_factory=dict, max_length=ENTRIES)
    sources: list[DatasetSource] = Field(default_factory=list, max_length=32)

    def counts(self) -> "DatasetRecord":
        """The same without what the sources are called elsewhere."""
        sources = [DatasetSource(name=source.name, records=source.records) for source in self.sources]
        return self.model_copy(update={"sources": sources})


class GateRecord(Record):
    """What became of one gate."""

    metric: Annotated[Name, Field(max_length=160)]
    verdict: Literal["Promote", "Reject", "Inconclusive"]
    value: Number = None
    reference: Number = None
    gain: Number = None
    interval: list[Number] | None = Field(None, max_length=2)
    n: Whole | None = None
    confidence: Amount | None = None
    message: GateText | None = None


class EvaluationRecord(Record):
    """How good the trained model is on held-out records."""

    split: Name | None = None
    records: Whole | None = None
    metrics: Metrics = Field(default_factory=dict)
    baseline: Metrics | None = None
    """The same of the model before training."""
    verdict: Literal["Promote", "Reject", "Inconclusive"] | None = None
    gates: list[GateRecord] = Field(default_factory=list, max_length=16)
    compared_with: ShortText | None = None
    passed: bool | None = None
    message: ShortText | None = None

    def verdicts(self) -> "EvaluationRecord | None":
        """The verdicts without words: what a run waits for must not be lost to a record that is too long."""
        if self.verdict is None:
            return None
        bare = {"reference": None, "interval": None, "confidence": None, "message": None}
        gates = [gate.model_copy(update=bare) for gate in self.gates]
        return EvaluationRecord(verdict=self.verdict, passed=self.passed, gates=gates)


class ExportRecord(Record):
    """Where an export has put the result, and what of it stays for those that come after it."""

    uri: Annotated[Name, Field(max_length=1024)]
    digest: Annotated[Name, Field(max_length=128)]
    version: Annotated[Name, Field(max_length=128)] | None = None


class FinalRecord(Record):
    """The end of a step, at most TERMINATION_LOG_LIMIT bytes as JSON."""

    version: Whole = RECORD_VERSION
    step: StepName
    attempt: int = Field(1, ge=1, le=LARGEST)
    outcome: Literal["Succeeded", "Resume", "Failed"]
    reason: Reason | None = None
    message: LongText | None = None
    hint: LongText | None = None
    first_step: Whole | None = None
    step_number: Whole | None = None
    total_steps: Whole | None = None
    percentage: Percentage | None = None
    metrics: Metrics = Field(default_factory=dict)
    checkpoint: CheckpointRecord | None = None
    dataset: DatasetRecord | None = None
    evaluation: EvaluationRecord | None = None
    export: ExportRecord | None = None
    effective: Facts | None = None
    provenance: Facts | None = None
    timings: dict[Name, Amount] | None = Field(None, max_length=ENTRIES)
    mlflow_run_id: MlflowRun | None = None
    last_log_lines: LogLines = Field(default_factory=list)

    def fit(self, limit: int) -> str:
        """JSON of at most `limit` bytes: the log lines go first, then the names that datasets have elsewhere, then the ends of
        long texts; numbers stay."""
        record = self
        for lines in range(len(self.last_log_lines), -1, -1):
            record = self.model_copy(update={"last_log_lines": self.last_log_lines[:lines] if lines else []})
            text = record.to_json()
            if len(text.encode()) <= limit:
                return text
        if record.dataset is not None:
            record = record.model_copy(update={"dataset": record.dataset.counts()})
        for keep in (10_000, 1500, 800, 300, 100):
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
                "evaluation": self.evaluation.verdicts() if self.evaluation is not None else None,
                **shorter,
            }
        )
        return bare.to_json()


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without(facts: dict[str, Any], faults: Iterable[ErrorDetails]) -> dict[str, Any]:
    """The facts without those that the faults name. Of a mapping or a list that is too long, the first entries stay."""
    limits = {_found(facts, fault["loc"]): _limit(fault) for fault in faults}
    facts = dict(facts)
    for path in sorted(limits, reverse=True):  # the last ones of a list first: the places of the others stay true
        if not path:
            continue  # something that is missing
        holder: Any = facts
        for part in path[:-1]:
            holder[part] = copy.copy(holder[part])
            holder = holder[part]
        limit = limits[path]
        if limit is None:
            del holder[path[-1]]
        else:
            entries = holder[path[-1]]
            holder[path[-1]] = dict(islice(entries.items(), limit)) if isinstance(entries, dict) else entries[:limit]
    return facts


def _found(facts: Any, place: tuple[int | str, ...]) -> tuple[Any, ...]:
    """As much of the place as there is: what lacks a part, or has one under a name that is no text, goes as a whole."""
    path: list[int | str] = []
    for part in place:
        there = part in facts if isinstance(facts, dict) else isinstance(facts, list) and part in range(len(facts))
        if not there:
            break
        path.append(part)
        facts = facts[part]
    return tuple(path)


def _limit(fault: ErrorDetails) -> int | None:
    return int(fault["ctx"]["max_length"]) if fault["type"] == "too_long" else None
