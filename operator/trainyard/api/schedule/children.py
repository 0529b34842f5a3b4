"""The runs of a schedule: what they are called and what they are made of, before anything of one start is added.

A name follows from the start alone: `<schedule>[-<variant>]-<n>`, where n is the slot in unix minutes (8 digits) for
the clock and the moment in unix seconds (10 digits) for triggers and people. The two can never meet.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainyard.api.schedule.status import CLOCK, Firing
from trainyard.api.schedule.trainingschedule import TrainingSchedule, TrainingScheduleSpec, Variant

Object = dict[str, Any]


@dataclass(frozen=True)
class ScheduleRef:
    """The schedule whose runs are made."""

    name: str
    namespace: str
    uid: str
    created: datetime
    spec: TrainingScheduleSpec
    raw_spec: Mapping[str, Any]
    """The spec as the API server returned it: what runs are made of."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: Mapping[str, Any], schedule: TrainingSchedule) -> "ScheduleRef":
        """From the object as the API server returned it, and what it was parsed to."""
        metadata = raw["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            spec=schedule.spec,
            raw_spec=raw["spec"],
            annotations=schedule.metadata.annotations,
        )


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: mappings are merged, everything else replaces, null removes."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def digest(value: Any) -> str:
    """sha256 over the value's JSON with sorted keys, 16 bytes of it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def child_name(schedule: str, variant: str | None, firing: Firing) -> str:
    """The run's name."""
    moment = int(datetime.fromisoformat(firing.time).timestamp())
    number = moment // 60 if firing.started_by == CLOCK else moment
    return "-".join(part for part in (schedule, variant, str(number)) if part)


def child_spec(schedule: ScheduleRef, variant: Variant | None, overrides: str | None = None) -> Object:
    """The run's spec before anything of this start is added to it."""
    spec = schedule.raw_spec["template"]["spec"]
    if variant is not None:
        spec = merge(spec, variant.patch)
    if overrides:
        spec = merge(spec, json.loads(overrides))
    return copy.deepcopy(dict(spec))
