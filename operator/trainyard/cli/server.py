"""Asking the API server what it thinks of a manifest, by way of kubectl.

Nothing is created: `--dry-run=server` runs schema, CEL rules, admission and quota, and stops.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from trainyard.api.manifest import Fault
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.cli.checking import FileReport, ObjectReport
from trainyard.cli.kubectl import kubectl, tidy

_PVC_URI = re.compile(r"^pvc://([^/]+)/")


def ask_server(report: FileReport) -> FileReport:
    """The report with the API server's faults added to each object that has none of its own.

    Raises:
        NoKubectl: kubectl is missing, or no API server answers.
    """
    return replace(report, objects=tuple(_ask(one) if one.valid else one for one in report.objects))


def _ask(report: ObjectReport) -> ObjectReport:
    faults = [*_dry_run(report), *_missing(report)]
    return replace(report, faults=tuple(faults), model=None if faults else report.model)


def _dry_run(report: ObjectReport) -> Iterator[Fault]:
    arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
    result = kubectl(arguments, namespace=report.namespace, stdin=json.dumps(report.document.value))
    if result.returncode != 0:
        yield Fault("API server", tidy(result.stderr))


def _missing(report: ObjectReport) -> Iterator[Fault]:
    if report.run_spec is None:
        return
    inside = "spec.template." if report.kind == "TrainingSchedule" else ""
    for kind, field, name in named_objects(report.run_spec):
        result = kubectl(["get", kind, name, "-o", "name"], namespace=report.namespace)
        if result.returncode != 0 and "NotFound" in result.stderr:
            yield Fault(
                inside + field, f"there is no {kind} {name!r} in the namespace: create it first, or correct the name"
            )


def named_objects(spec: TrainingRunSpec) -> Iterator[tuple[str, str, str]]:
    """Kind, field and name of everything that must exist before the run can start."""
    if spec.model is not None:
        if spec.model.secret_ref is not None:
            yield "secret", "spec.model.secretRef.name", spec.model.secret_ref.name
        if claim := _PVC_URI.match(spec.model.storage_uri or ""):
            yield "persistentvolumeclaim", "spec.model.storageUri", claim[1]
    for index, dataset in enumerate(spec.datasets or ()):
        if dataset.secret_ref is not None:
            yield "secret", f"spec.datasets[{index}].secretRef.name", dataset.secret_ref.name
        for field, uri in dataset.addresses().items():
            if claim := _PVC_URI.match(uri):
                yield "persistentvolumeclaim", f"spec.datasets[{index}].{field}", claim[1]
    tracking = spec.tracking.mlflow if spec.tracking else None
    if tracking is not None and tracking.secret_ref is not None:
        yield "secret", "spec.tracking.mlflow.secretRef.name", tracking.secret_ref.name
    if spec.push_to_hub is not None:
        yield "secret", "spec.pushToHub.secretRef.name", spec.push_to_hub.secret_ref.name
    for field, reward in spec.reward_models():
        if reward.secret_ref is not None:
            yield "secret", f"{field}.secretRef.name", reward.secret_ref.name
        if claim := _PVC_URI.match(reward.storage_uri):
            yield "persistentvolumeclaim", f"{field}.storageUri", claim[1]
    for field, storage in (("checkpoints", spec.storage.checkpoints), ("cache", spec.storage.cache)):
        if storage is not None and storage.claim_name and storage.size is None:
            yield "persistentvolumeclaim", f"spec.storage.{field}.claimName", storage.claim_name
