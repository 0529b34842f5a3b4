"""What the API server's schema cannot check: time zones, cron fields, and the runs that variants make. Pure."""

from collections.abc import Mapping
from typing import Any

from trainyard.api import API_VERSION
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.schedule.children import ScheduleRef, child_spec, merge
from trainyard.api.schedule.timetable import DEFAULT_ZONE, InvalidTimetable, parse_cron, parse_zone
from trainyard.api.schedule.trainingschedule import Variant


def faults(schedule: ScheduleRef, *, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """Everything that is wrong, one sentence each. With `overrides`: what is wrong with the runs under them."""
    found = [] if overrides is not None else _clock(schedule)
    variants: list[Variant | None] = list(schedule.spec.variants) or [None]
    for index, variant in enumerate(variants):
        where = "spec.template" if variant is None else f"spec.variants[{index}] ({variant.name})"
        found += [f"{where}: {fault}" for fault in _run(schedule, variant, overrides)]
    return found


def _clock(schedule: ScheduleRef) -> list[str]:
    spec, found = schedule.spec, []
    if spec.schedule is not None:
        try:
            parse_zone(spec.time_zone or DEFAULT_ZONE)
        except InvalidTimetable as error:
            return [f"spec.timeZone: {error}"]
        try:
            parse_cron(spec.schedule, DEFAULT_ZONE)
        except InvalidTimetable as error:
            found.append(f"spec.schedule: {error}")
    return found


def _run(schedule: ScheduleRef, variant: Variant | None, overrides: Mapping[str, Any] | None) -> list[str]:
    spec = child_spec(schedule, variant)
    if overrides is not None:
        spec = merge(spec, overrides)
    manifest = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": "run"}, "spec": spec}
    try:
        parse_run(manifest)
    except InvalidManifest as invalid:
        return [str(fault) for fault in invalid.faults]
    return []
