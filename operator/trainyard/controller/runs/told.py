"""What pods, people and the cluster have told, made fit for the status. It never fails, and nothing is decided here.

Whoever writes a training script, an image or an annotation may write what he likes: escape codes, a novel, a number of
four hundred digits, a loss that has left all bounds. It goes through these functions and comes out as something that the
API server takes: text without control characters and no longer than its field, numbers in range, times as RFC 3339. What
cannot be made fit is left out. So the decision beside it (suspended, cancelled, failed) can always be written.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from trainyard.api.progress import CheckpointRecord, DatasetRecord, EvaluationRecord, FinalRecord, ProgressRecord
from trainyard.api.run.status import (
    Attempt,
    CheckpointStatus,
    DatasetSourceStatus,
    DatasetStatus,
    EvaluationStatus,
    Failure,
    Metric,
    TrainingRunStatus,
)
from trainyard.controller.clock import rfc3339

R = TypeVar("R", ProgressRecord, FinalRecord)

TOLD = ("trainer_status", "checkpoint", "dataset", "evaluation", "effective", "provenance", "mlflow_run_id", "summary")
"""Fields of the status that show what was told. Everything else in it is the operator's own word."""

LARGEST = 2**53
"""The largest whole number that is the same number to every reader of JSON."""
ENTRIES = 64
"""Of a mapping of words or metrics."""
KEY_LIMIT, VALUE_LIMIT = 253, 1024

_ESCAPE_CODES = re.compile(r"\x1b(\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\^_])")
_LINE_ENDS = re.compile(r"[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+[ \t]*")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, halves of characters, and marks that turn the direction of writing."""


@lru_cache(maxsize=256)
def limit_of(model: type[BaseModel], field: str) -> int:
    """How many characters a field takes."""
    return next(int(m.max_length) for m in model.model_fields[field].metadata if hasattr(m, "max_length"))


def line(said: object, limit: int) -> str:
    """On one line."""
    words = said if isinstance(said, str) else _as_text(said)
    if not words.isprintable():
        words = _LINE_ENDS.sub(" ", _ESCAPE_CODES.sub("", words)).replace("\t", " ")
        words = _UNSEEN.sub("", words).strip()
    return _cut(words, limit)


def text(said: object, limit: int) -> str:
    """The same with its line ends."""
    words = said if isinstance(said, str) else _as_text(said)
    if not words.isprintable():
        words = _UNSEEN.sub("", _ESCAPE_CODES.sub("", words).replace("\r\n", "\n").replace("\r", "\n"))
    return _cut(words, limit)


def _as_text(said: object) -> str:
    try:
        return str(said)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return "?"


def _cut(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"


def count(said: object) -> int | None:
    """A whole number from 0 on."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= LARGEST:
        return None
    return int(said)


def share(said: float | None) -> float | None:
    """A percentage; what is a little beyond is taken for the end of the scale."""
    return None if said is None or not math.isfinite(said) else min(100.0, max(0.0, said))


def moment(said: str | None) -> str | None:
    """A time since 1970."""
    try:
        at = datetime.fromisoformat(said or "")
    except ValueError:
        return None
    if not 1970 <= at.year < 9999:
        return None
    return rfc3339(at if at.tzinfo else at.replace(tzinfo=UTC))


def number(said: object) -> str:
    """Of any size, in few characters: 3, 0.25, 1e+30, nan."""
    if said is None:
        return "nan"
    if not isinstance(said, int | float):
        return line(said, limit_of(Metric, "value"))
    try:
        value = float(said)
    except OverflowError:
        return "inf" if said > 0 else "-inf"
    return str(int(value)) if value.is_integer() and abs(value) <= LARGEST else f"{value:.6g}"


def metrics(said: object) -> list[Metric]:
    """By name, each name once."""
    found: dict[str, str] = {}
    for name, value in sorted(said.items(), key=lambda item: str(item[0])) if isinstance(said, Mapping) else ():
        found.setdefault(line(name, limit_of(Metric, "name")), number(value))
    return [Metric(name=name, value=value) for name, value in [*found.items()][:ENTRIES]]


def words(said: Mapping[str, Any]) -> dict[str, str]:
    """Anything by name, as text."""
    told = [(k, v) for k, v in said.items() if v is not None][:ENTRIES]
    return {line(k, KEY_LIMIT): line(v, VALUE_LIMIT) for k, v in told}


def checkpoint(said: CheckpointRecord | None) -> CheckpointStatus | None:
    """Without a step that can be true, there is none."""
    step = None if said is None else count(said.step)
    if said is None or step is None:
        return None
    return CheckpointStatus(step=step, path=line(said.path, limit_of(CheckpointStatus, "path")), time=moment(said.time))


def dataset(said: DatasetRecord) -> DatasetStatus:
    """What the prepare step says it has made."""
    splits = {line(name, KEY_LIMIT): n for name, v in [*said.splits.items()][:ENTRIES] if (n := count(v)) is not None}
    sources: dict[str, int] = {}
    for source in said.sources:
        if (records := count(source.records)) is not None:
            sources.setdefault(line(source.name, limit_of(DatasetSourceStatus, "name")), records)
    return DatasetStatus(
        digest=digest(said),
        records=count(said.records),
        tokens=count(said.tokens),
        splits=splits,
        sources=[DatasetSourceStatus(name=name, records=records) for name, records in sources.items()],
    )


def digest(said: DatasetRecord | None) -> str | None:
    """Of the data."""
    return line(said.digest, limit_of(DatasetStatus, "digest")) if said is not None and said.digest else None


def evaluation(said: EvaluationRecord) -> EvaluationStatus:
    """What the evaluate step has measured."""
    return EvaluationStatus(
        metrics=metrics(said.metrics),
        baseline=metrics(said.baseline) or None,
        passed=said.passed,
        message=line(said.message, limit_of(EvaluationStatus, "message")) if said.message else None,
    )


def failure(*, reason: str, message: str, step: str | None = None, hint: str | None = None) -> Failure:
    """Why the run failed."""
    return Failure(
        reason=reason,
        step=step,
        message=text(message, limit_of(Failure, "message")),
        hint=text(hint, limit_of(Failure, "hint")) if hint else None,
    )


def last_words(lines: tuple[str, ...]) -> list[str] | None:
    """The end of a log."""
    return [line(each, VALUE_LIMIT) for each in lines] or None


def fault(message: str) -> str:
    """What an attempt ended with."""
    return text(message, limit_of(Attempt, "message"))


def heard(record: R) -> R:
    """The record without numbers that cannot be true: what decides looks at steps, and the status takes only so many."""
    wrong = {
        name: fit
        for name in ("first_step", "step_number", "total_steps")
        if (given := getattr(record, name)) is not None and (fit := count(given)) != given
    }
    return record.model_copy(update=wrong) if wrong else record


def left_out(status: TrainingRunStatus) -> TrainingRunStatus:
    """The status without anything that was told."""
    steps = [
        s.model_copy(update={"attempts": [a.model_copy(update=_NOTHING_SAID) for a in s.attempts or ()]})
        for s in status.steps or ()
    ]
    return status.model_copy(update={**dict.fromkeys(TOLD), "steps": steps})


_NOTHING_SAID = {"message": None, "last_log_lines": None}


def read_status(raw: Mapping[str, Any] | None) -> TrainingRunStatus:
    """The status that was written; without what was told where that can no longer be read (by an older version, by hand)."""
    try:
        return TrainingRunStatus.model_validate(raw or {})
    except ValidationError:
        names = {to_camel(name) for name in TOLD}
        return TrainingRunStatus.model_validate({k: v for k, v in (raw or {}).items() if k not in names})
