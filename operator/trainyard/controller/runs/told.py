"""What pods, people and the cluster have told, in the words of the status. It never fails, and nothing is decided here.

Whoever writes a training script, an image or an annotation may write what he likes. What comes in a record was bounded
when that was taken (`api/progress.py`); Events, annotations and the end of a log are cleaned and cut here, and numbers of
any size become short texts. So the decision beside them (suspended, cancelled, failed) can always be written. Should
something fit all the same into no status, these are the fields that are left out for it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from trainyard.api.addresses import told as harmless
from trainyard.api.bounds import LARGEST
from trainyard.api.progress import DatasetRecord, EvaluationRecord, GateRecord
from trainyard.api.run.status import (
    Attempt,
    DatasetSourceStatus,
    DatasetStatus,
    EvaluationStatus,
    Failure,
    GateStatus,
    Metric,
    TrainingRunStatus,
)
from trainyard.api.texts import one_line

TOLD = ("trainer_status", "checkpoint", "dataset", "evaluation", "effective", "provenance", "mlflow_run_id", "summary")
"""Fields of the status that show what was told. Everything else in it is the operator's own word."""


@lru_cache(maxsize=256)
def limit_of(model: type[BaseModel], field: str) -> int:
    """How many characters a field takes."""
    return next(int(m.max_length) for m in model.model_fields[field].metadata if hasattr(m, "max_length"))


def number(said: float | None) -> str:
    """Of any size, in few characters: 3, 0.25, 1e+30, nan."""
    if said is None:
        return "nan"
    return str(int(said)) if float(said).is_integer() and abs(said) <= LARGEST else f"{said:.6g}"


def metrics(said: Mapping[str, float | None] | None) -> list[Metric] | None:
    """By name; None where nothing was measured."""
    return [Metric(name=name, value=number(value)) for name, value in sorted((said or {}).items())] or None


def words(said: Mapping[str, Any]) -> dict[str, str]:
    """Settings, versions and the like, as text."""
    return {name: str(value) for name, value in said.items() if value is not None}


def dataset(said: DatasetRecord) -> DatasetStatus:
    """What the prepare step says it has made; of two sources of one name, the first."""
    sources: dict[str, DatasetSourceStatus] = {}
    for source in said.sources:
        sources.setdefault(source.name, DatasetSourceStatus(**source.model_dump()))
    return DatasetStatus(
        digest=said.digest,
        records=said.records,
        tokens=said.tokens,
        splits=said.splits,
        sources=list(sources.values()),
    )


def evaluation(said: EvaluationRecord) -> EvaluationStatus:
    """What the evaluate step has measured."""
    gates: dict[str, GateStatus] = {}
    for gate in said.gates:
        gates.setdefault(gate.metric, _gate(gate))
    return EvaluationStatus(
        verdict=said.verdict,
        gates=list(gates.values()) or None,
        compared_with=said.compared_with or None,
        metrics=metrics(said.metrics) or [],
        baseline=metrics(said.baseline),
        passed=said.passed,
        message=said.message or None,
    )


def _gate(said: GateRecord) -> GateStatus:
    values = {name: getattr(said, name) for name in ("value", "reference", "gain", "confidence")}
    return GateStatus(
        metric=said.metric,
        verdict=said.verdict,
        interval=None if said.interval is None else [number(end) for end in said.interval],
        n=said.n,
        message=said.message or None,
        **{name: None if value is None else number(value) for name, value in values.items()},
    )


def failure(*, reason: str, message: str, step: str | None = None, hint: str | None = None) -> Failure:
    """Why the run failed."""
    return Failure(
        reason=reason,
        step=step,
        message=one_line(harmless(message), limit=limit_of(Failure, "message")),
        hint=one_line(harmless(hint), limit=limit_of(Failure, "hint")) if hint else None,
    )


def fault(message: str) -> str:
    """What an attempt ended with."""
    return one_line(harmless(message), limit=limit_of(Attempt, "message"))


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
