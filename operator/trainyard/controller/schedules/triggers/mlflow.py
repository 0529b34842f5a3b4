"""The `mlflowMetric` trigger: a metric of the run that a registered model's version came from.

One version starts one run at most, however its metric moves: what is wrong with it is known then, and the next version
is judged anew. Spoken over MLflow's REST interface (2.0, served by all versions since), so no MLflow is installed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.threshold import SIGNS, compare

if TYPE_CHECKING:
    from trainyard.api.schedule.triggers import MlflowMetric
    from trainyard.controller.schedules.triggers.door import Door

MISSING = "missing"


def read(door: Door, spec: MlflowMetric, marks: Mapping[str, str] | None = None) -> Answer:
    """Ask; there is nothing to remember.

    Raises `SourceDown`; a model that does not exist is an answer, a server that does not is none.
    """
    version = _version(door, spec)
    which = f"alias {spec.alias}" if spec.alias is not None else f"stage {spec.stage}"
    if version is None:
        return _missing(spec, f"{spec.model} has no version with {which}")
    number = str(version.get("version", "?"))
    value = _metric(door, spec, str(version.get("run_id") or ""))
    if value is None:
        return _missing(spec, f"{spec.model} version {number} has no metric {spec.metric}")
    holds = compare(value, spec.comparison, spec.threshold)
    told = f"{spec.metric} of {spec.model} version {number} is {value:g}, wanted for a run is {SIGNS[spec.comparison]} {spec.threshold:g}"
    return Answer(f"version {number}", told, holds=holds)


def _missing(spec: MlflowMetric, told: str) -> Answer:
    return Answer(MISSING, told, holds=spec.missing == "Fire")


def _version(door: Door, spec: MlflowMetric) -> dict[str, Any] | None:
    if spec.alias is not None:
        body = _ask(door, spec, "registered-models/alias", {"name": spec.model, "alias": spec.alias})
        return None if body is None else body.get("model_version")
    query = {"name": spec.model, "stages": spec.stage or ""}
    body = _ask(door, spec, "registered-models/get-latest-versions", query)
    found: list[dict[str, Any]] = [] if body is None else body.get("model_versions") or []
    return max(found, key=lambda v: int(v.get("version", 0)), default=None)


def _metric(door: Door, spec: MlflowMetric, run: str) -> float | None:
    if not run:
        return None
    body = _ask(door, spec, "runs/get", {"run_id": run})
    metrics = ((body or {}).get("run") or {}).get("data", {}).get("metrics") or []
    return next((float(m["value"]) for m in metrics if m.get("key") == spec.metric), None)


def _ask(door: Door, spec: MlflowMetric, what: str, query: dict[str, str]) -> dict[str, Any] | None:
    url = f"{spec.tracking_uri.rstrip('/')}/api/2.0/mlflow/{what}"
    status, body = door.get_json(url, query=query)
    if not isinstance(body, dict):
        raise SourceDown(f"{url} answers HTTP {status} with something else than an object")
    code = body.get("error_code")
    if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and status in (400, 404):
        return None  # MLflow says the second for an alias that does not exist
    if status != 200:
        raise SourceDown(f"{url}: HTTP {status} {code or ''} {body.get('message', '')}".strip()[:900])
    return body
