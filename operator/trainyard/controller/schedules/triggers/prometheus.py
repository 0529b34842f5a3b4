"""The `prometheus` trigger: one instant query, compared with a threshold.

A query without any series is no answer. It may mean that all is well, or that the exporter is gone; a run started, or a
trigger armed again, because of a gap in the data would be the wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.threshold import SIGNS, compare

if TYPE_CHECKING:
    from trainyard.api.schedule.triggers import PrometheusQuery
    from trainyard.controller.schedules.triggers.door import Door


def read(door: Door, spec: PrometheusQuery, marks: Mapping[str, str] | None = None) -> Answer:
    """Ask; there is nothing to remember. Raises `SourceDown`."""
    url = f"{spec.url.rstrip('/')}/api/v1/query"
    status, body = door.get_json(url, query={"query": spec.query})
    if not isinstance(body, dict) or body.get("status") != "success":
        said = body.get("error") if isinstance(body, dict) else None
        raise SourceDown(f"{url}: {said or f'HTTP {status}'}; check prometheus.query")
    values = _values(body.get("data") or {})
    if not values:
        raise SourceDown(f"the query {spec.query!r} has no data; the comparison belongs into comparison and threshold")
    meeting = [v for v in values if compare(v, spec.comparison, spec.threshold)]
    shown = meeting[0] if meeting else values[0]
    told = f"{shown:g}, wanted for a run is {SIGNS[spec.comparison]} {spec.threshold:g}"
    return Answer("holds" if meeting else "quiet", told, holds=bool(meeting))


def _values(data: dict[str, Any]) -> list[float]:
    match data.get("resultType"):
        case "vector":
            found = [float(series["value"][1]) for series in data.get("result") or ()]
        case "scalar":
            found = [float(data["result"][1])]
        case other:
            raise SourceDown(f"prometheus.query gives a {other}; write one that gives a vector or a scalar")
    return [v for v in found if not math.isnan(v)]
