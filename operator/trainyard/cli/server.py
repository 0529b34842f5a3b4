"""Asking the API server what it thinks of a manifest, by way of kubectl.

Nothing is created: `--dry-run=server` runs schema, CEL rules, admission and quota, and stops.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

from trainyard.api.manifest import Fault
from trainyard.api.references import references
from trainyard.cli.checking import FileReport, ObjectReport
from trainyard.cli.kubectl import kubectl, tidy


def ask_server(report: FileReport) -> FileReport:
    """The report with the API server's faults added to each object that has none of its own.

    Raises:
        Misused: kubectl is missing.
        Unreachable: no API server answers.
    """
    return replace(report, objects=tuple(_ask(one) if one.valid else one for one in report.objects))


def _ask(report: ObjectReport) -> ObjectReport:
    faults = [*_dry_run(report), *_missing(report)]
    return replace(report, faults=tuple(faults), model=None if faults else report.model)


def _dry_run(report: ObjectReport) -> Iterator[Fault]:
    # apply cannot do what has no name yet
    verb = "apply" if (report.document.value.get("metadata") or {}).get("name") else "create"
    arguments = [verb, "--dry-run=server", "--validate=strict", "-f", "-"]
    result = kubectl(arguments, namespace=report.namespace, stdin=json.dumps(report.document.value))
    if result.returncode != 0:
        yield Fault("API server", tidy(result.stderr))


def _missing(report: ObjectReport) -> Iterator[Fault]:
    if report.run_spec is None:
        return
    inside = "spec.template." if report.kind in ("TrainingSchedule", "TrainingSweep") else ""
    for one in references(report.run_spec):
        kind = one.kind.lower()
        result = kubectl(["get", kind, one.name, "-o", "name"], namespace=report.namespace)
        if result.returncode != 0 and "NotFound" in result.stderr:
            advice = f"there is no {kind} {one.name!r} in the namespace: create it first, or correct the name"
            yield Fault(inside + one.field, advice)
