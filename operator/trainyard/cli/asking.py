"""One start of a schedule by hand.

The request is three annotations in one patch, as anybody could write them with kubectl. What is added here: the
schedule is read first and the request is judged by the operator's own rules, so that a wrong field is told here and not
in an Event; and it waits until the runs are made, and names them.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainyard.api.manifest import InvalidManifest, parse_schedule
from trainyard.api.schedule.children import ScheduleRef, child_name
from trainyard.api.schedule.status import RUN_NOW, Firing
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION, RUN_NOW_ANNOTATION, VARIANTS_ANNOTATION
from trainyard.api.schedule.validity import faults
from trainyard.cli.cluster import name_of, runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Refused
from trainyard.cli.patches import patch_of
from trainyard.cli.printing import print_next
from trainyard.client import NotFound, Runs

POLL_SECONDS = 0.3


def ask(options: argparse.Namespace) -> None:
    """Ask for the start that the options describe."""
    request = Request(name_of(options), values=options.values, variants=options.variant, force=options.force)
    wait = seconds_of(options.wait, option="--wait") or 0
    _start(runs_of(options), request, wait=wait, options=options)


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    name: str
    values: Sequence[str] = ()
    variants: Sequence[str] = ()
    force: bool = False


def _start(runs: Runs, request: Request, *, wait: float, options: argparse.Namespace) -> None:
    """Ask for the start, and tell what has become of it after at most `wait` seconds.

    Raises:
        Refused: the request is wrong, or its runs were not made in time.
        ClientError: there is no such schedule, or no cluster can be asked.
    """
    overrides = patch_of(request.values)
    schedule = _reference(_get(runs, request.name))
    if fault := _fault(schedule, overrides, request.variants):
        raise Refused(f"{fault}; nothing was started")
    value = ("force-" if request.force else "") + datetime.now(UTC).isoformat(timespec="milliseconds")
    annotations = {
        RUN_NOW_ANNOTATION: value,
        OVERRIDES_ANNOTATION: json.dumps(overrides) if overrides else None,
        VARIANTS_ANNOTATION: ",".join(request.variants) or None,
    }
    path = runs.path(request.name, plural="trainingschedules")
    runs.api.patch(path, {"metadata": {"annotations": annotations}})
    if not wait:
        print(f"asked for a start of {request.name}")
        return
    _until(lambda: (_get(runs, request.name).get("status") or {}).get("lastRunNow") == value, seconds=wait)
    names, later = _made(runs, request, schedule, value, wait=wait)
    then = f"; {', '.join(later)} will follow, each at the end of the one before" if later else ""
    print(f"made {', '.join(names)}{then}")
    name, where = options.called_as, same_cluster(options)
    print_next(f"{name} watch {names[0]}{where}", f"{name} logs -f {names[0]}{where}", f"{name} list{where}")


def _get(runs: Runs, name: str) -> dict[str, Any]:
    try:
        return runs.api.get(runs.path(name, plural="trainingschedules"))
    except NotFound as error:
        raise NotFound(f"there is no TrainingSchedule {name!r} in namespace {runs.namespace}") from error


def _reference(raw: Mapping[str, Any]) -> ScheduleRef:
    try:
        schedule = parse_schedule(raw)
    except InvalidManifest as error:
        raise Refused(f"the schedule itself is wrong: {error.faults[0]}") from None
    return ScheduleRef.of(raw, schedule)


def _fault(schedule: ScheduleRef, overrides: Mapping[str, Any], variants: Sequence[str]) -> str | None:
    there = [v.name for v in schedule.spec.variants]
    for variant in variants:
        if variant not in there:
            return f"--variant {variant}: the schedule has {', '.join(there) or 'no variants'}"
    wrong = faults(schedule, overrides=overrides)
    return wrong[0] if wrong else None


def _made(
    runs: Runs, request: Request, schedule: ScheduleRef, value: str, *, wait: float
) -> tuple[list[str], list[str]]:
    """The runs that are there, and those that will follow them."""
    status = _get(runs, request.name).get("status") or {}
    if status.get("lastRunNow") != value:
        why = status.get("message") or "the operator has not said anything; is it running?"
        raise Refused(f"no run has been made yet, the request stands: {why}")
    if "lastMoment" not in status:
        raise Refused(
            f"the operator has refused the request: kubectl describe trainingschedule {request.name} tells why"
        )
    firing = Firing(time=status["lastMoment"], started_by=RUN_NOW)
    variants = [v.name for v in schedule.spec.variants if not request.variants or v.name in request.variants]
    names = [child_name(schedule.name, variant, firing) for variant in (*variants,) or (None,)]
    at_once = names[:1] if schedule.spec.variant_policy == "Sequential" else names
    if not _until(lambda: all(_is_there(runs, name) for name in at_once), seconds=wait):
        said = (_get(runs, request.name).get("status") or {}).get("message")
        raise Refused(
            f"the start has begun and its runs are not there yet: {said}; kubectl describe trainingschedule {request.name} "
            "shows what becomes of it"
        )
    return at_once, names[len(at_once) :]


def _is_there(runs: Runs, name: str) -> bool:
    try:
        runs.get(name)
    except NotFound:
        return False
    return True


def _until(done: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := done()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return found
