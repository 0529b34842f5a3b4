"""TrainingSchedules as the tests use them. Their runs carry a queue's label, so that their Jobs stay suspended and cost
nothing; a test whose runs must really run takes the label away."""

import time
from collections.abc import Callable
from typing import Any

from tests.e2e import measure
from tests.e2e.kube import Kube, Object
from tests.e2e.scripted import counting
from trainyard.api.names import QUEUE_LABEL
from trainyard.controller.kube.resources import TRAININGSCHEDULES

HELD: Object = {"labels": {QUEUE_LABEL: "nobody-serves-this-queue"}}
MINUTE = 60.0
KUBECTL, KUBECONFIG = measure.FOLDER.parent / "bin" / "kubectl", measure.FOLDER.parent / "kubeconfig"


def schedule(name: str, *, held: bool = True, run: Object | None = None, **spec: Any) -> Object:
    """A schedule of every minute, unless `spec` says otherwise, whose runs count a few steps."""
    clock = {} if {"schedule", "intervalSeconds", "triggers"} & spec.keys() else {"schedule": "* * * * *"}
    template = {"metadata": HELD if held else {}, "spec": run or counting("run", steps=20)["spec"]}
    return {"metadata": {"name": name}, "spec": {**clock, "template": template, **spec}}


def create(kube: Kube, namespace: str, manifest: Object) -> Object:
    """Create it."""
    return kube.create(TRAININGSCHEDULES, namespace, manifest)


def until(
    kube: Kube, namespace: str, name: str, holds: Callable[[Object], bool], *, seconds: float, what: str
) -> Object:
    """The first version of the schedule for which `holds` is true."""

    def enough(found: Object | None) -> bool:
        return found is not None and bool(found.get("status", {}).get("conditions")) and holds(found)

    found = kube.wait(TRAININGSCHEDULES, namespace, name, enough, seconds=seconds, what=what)
    assert found is not None
    return found


def counts(found: Object) -> dict[str, int]:
    """`status.runs`, with zeros."""
    return {"created": 0, "missed": 0, "skipped": 0} | dict(found.get("status", {}).get("runs") or {})


def wall(monotonic: float) -> float:
    """A moment of the monotonic clock as seconds since the epoch."""
    return time.time() - (time.monotonic() - monotonic)


def slot_of(run: str) -> float:
    """When a run of the clock was due, in seconds since the epoch: its name tells."""
    return int(run.rpartition("-")[2]) * MINUTE
