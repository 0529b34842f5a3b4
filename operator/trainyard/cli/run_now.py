"""`trainyard run-now`: one start of a schedule by hand.

The request is three annotations in one patch, as anybody could write them with kubectl. What this command adds: the
schedule is read first and the request is judged by the operator's own rules, so that a wrong field is told here and not
in an Event; and it waits until the runs are made, and names them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from trainyard.api.manifest import InvalidManifest, parse_schedule, read_documents
from trainyard.api.schedule.children import ScheduleRef, child_name
from trainyard.api.schedule.status import RUN_NOW, Firing
from trainyard.api.schedule.trainingschedule import OVERRIDES_ANNOTATION, RUN_NOW_ANNOTATION, VARIANTS_ANNOTATION
from trainyard.api.schedule.validity import faults
from trainyard.cli.exits import Refused
from trainyard.cli.kubectl import kubectl, tidy

RESOURCE = "trainingschedules.trainyard.dev"
RUNS = "trainingruns.trainyard.dev"
FIELD_MANAGER = "trainyard-cli"
"""Not kubectl's own name: Flux takes back whatever stands under that one, and would remove the annotations."""


def run_now(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The TrainingSchedule.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Default: that of kubectl's context.")] = "",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Of template.spec, for this start alone: training.maxSteps=100. Dots in a key are written \\., the value "
            "is YAML, null removes. Repeatable.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this variant's run. Repeatable. Default: all.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if nothing has changed (skipIfUnchanged).")
    ] = False,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="How long to wait until the run is made; 0: only ask.")
    ] = 15,
) -> None:
    """Have a TrainingSchedule start its runs now, whatever its clock says, even while it is suspended.

    The request is checked first. Exit code 0: the runs are made (or asked for, with --wait 0); 1: refused, or not made in time.
    """
    request = Request(name, namespace, values=values or [], variants=variant or [], force=force)
    typer.echo(_start(request, wait=wait))


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    name: str
    namespace: str = ""
    values: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    force: bool = False


def _start(request: Request, *, wait: int) -> str:
    """Ask for the start; what has become of it after at most `wait` seconds, for people.

    Raises:
        Refused: there is no such schedule, the request is wrong, or its runs were not made in time.
        NoKubectl: no cluster can be asked.
    """
    overrides = patch_of(request.values)
    schedule = _reference(_get(request))
    if fault := _fault(schedule, overrides, request.variants):
        raise Refused(f"{fault}; nothing was started")
    value = ("force-" if request.force else "") + datetime.now(UTC).isoformat(timespec="milliseconds")
    annotations = {
        RUN_NOW_ANNOTATION: value,
        OVERRIDES_ANNOTATION: json.dumps(overrides) if overrides else None,
        VARIANTS_ANNOTATION: ",".join(request.variants) or None,
    }
    change = json.dumps({"metadata": {"annotations": annotations}})
    words = ["patch", RESOURCE, request.name, "--type=merge", f"--field-manager={FIELD_MANAGER}", "-p", change]
    result = kubectl(words, namespace=request.namespace)
    if result.returncode != 0:
        raise Refused(tidy(result.stderr))
    if not wait:
        return f"asked for a start of {request.name}"
    condition = f"--for=jsonpath={{.status.lastRunNow}}={value}"
    kubectl(["wait", RESOURCE, request.name, condition, f"--timeout={wait}s"], namespace=request.namespace)
    return _outcome(request, schedule, value, wait=wait)


def patch_of(values: list[str]) -> dict[str, Any]:
    """The JSON merge patch of `a.b=value` words; values are YAML. Raises Refused."""
    patch: dict[str, Any] = {}
    for word in values:
        path, equals, text = word.partition("=")
        keys = [key.replace("\0", ".") for key in path.replace("\\.", "\0").split(".")]
        if not equals or not all(keys):
            raise Refused(f"--set {word!r} has not the form FIELD=VALUE, for example training.maxSteps=100")
        try:
            value = read_documents(f"value: {text}")[0].value["value"]
        except InvalidManifest as error:
            raise Refused(f"--set {word!r}: the value is not YAML: {error.faults[0].message}") from None
        into = patch
        for key in keys[:-1]:
            into = into.setdefault(key, {})
            if not isinstance(into, dict):
                raise Refused(f"--set {word!r} goes into {key}, which an earlier --set gives a plain value")
        into[keys[-1]] = value
    return patch


def _get(request: Request) -> dict[str, Any]:
    result = kubectl(["get", RESOURCE, request.name, "-o", "json"], namespace=request.namespace)
    if result.returncode == 0:
        found: dict[str, Any] = json.loads(result.stdout)
        return found
    if "NotFound" in result.stderr:
        where = f"namespace {request.namespace}" if request.namespace else "the namespace of kubectl's context"
        raise Refused(
            f"there is no TrainingSchedule {request.name!r} in {where}; kubectl get trainingschedules -A lists them"
        )
    raise Refused(tidy(result.stderr))


def _reference(raw: Mapping[str, Any]) -> ScheduleRef:
    try:
        schedule = parse_schedule(raw)
    except InvalidManifest as error:
        raise Refused(f"the schedule itself is wrong: {error.faults[0]}") from None
    return ScheduleRef.of(raw, schedule)


def _fault(schedule: ScheduleRef, overrides: Mapping[str, Any], variants: list[str]) -> str | None:
    there = [v.name for v in schedule.spec.variants]
    for variant in variants:
        if variant not in there:
            return f"--variant {variant}: the schedule has {', '.join(there) or 'no variants'}"
    wrong = faults(schedule, overrides=overrides)
    return wrong[0] if wrong else None


def _outcome(request: Request, schedule: ScheduleRef, value: str, *, wait: int) -> str:
    status = _get(request).get("status") or {}
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
    made = kubectl(["wait", RUNS, *at_once, "--for=create", f"--timeout={wait}s"], namespace=request.namespace)
    if made.returncode != 0:
        raise Refused(f"the start has begun and its runs are not there yet: {_get(request)['status'].get('message')}")
    later = f"; {', '.join(names[1:])} will follow, each at the end of the one before" if at_once != names else ""
    return f"made {', '.join(at_once)}{later}"
