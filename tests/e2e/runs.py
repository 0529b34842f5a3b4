"""TrainingRuns for tests, and what can be read from them.

`tiny` is as small as a real language model can be and still go through every step: two layers of width 64 on a few
kilobytes of text. Its pods spend nearly all their time importing libraries.
"""

import copy
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests import ROOT
from tests.e2e.kube import CONFIG_MAPS, Found, Kube, Object
from trainyard.api import names
from trainyard.api.manifest import read_documents
from trainyard.api.steps import STEP_TRAIN
from trainyard.controller.kube.resources import JOBS, PODS, PVCS, SECRETS, TRAININGRUNS

SAMPLES = "file:///opt/trainyard/samples/python-stdlib"
TEXT: Object = {"name": "text", "storageUri": f"{SAMPLES}/json/*.py", "split": {"eval": 0.1}}
MODEL: Object = {
    "scratch": {
        "architecture": "llama",
        "config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        },
        "tokenizer": {"trainVocabSize": 500},
    }
}
TRAINING: Object = {
    "method": "Pretrain",
    "maxSteps": 100,
    "perDeviceTrainBatchSize": 4,
    "maxLength": 64,
    "learningRate": 1e-3,
    "precision": "FP32",
    "loggingSteps": 1,
}
SMALL: Object = {"requests": {"cpu": "100m", "memory": "300Mi"}, "limits": {"memory": "3Gi"}}


def tiny(name: str, *, training: Object | None = None, **spec: Any) -> Object:
    """A run of the built-in trainer; keyword arguments replace parts of its spec, `training` amends that part."""
    whole: Object = {
        "model": MODEL,
        "datasets": [TEXT],
        "training": {**TRAINING, **(training or {})},
        "checkpoints": {"everySteps": 20},
        "storage": {"checkpoints": {"size": "1Gi"}},
        "resources": SMALL,
        "podTemplate": {"terminationGracePeriodSeconds": 60},
        **spec,
    }
    return {"metadata": {"name": name}, "spec": copy.deepcopy({k: v for k, v in whole.items() if v is not None})}


def apply(kube: Kube, namespace: str, manifest: Object) -> Object:
    """Create the run."""
    return kube.create(TRAININGRUNS, namespace, manifest)


def condition(run: Found | None, kind: str) -> Found | None:
    """The condition of that type, if it is present."""
    conditions = (run or {}).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), None)


def has(run: Found | None, kind: str) -> bool:
    """Whether the condition is present and True."""
    found = condition(run, kind)
    return found is not None and found["status"] == "True"


def finished(run: Found | None) -> bool:
    return has(run, "Complete") or has(run, "Failed")


def state(run: Found | None) -> str:
    return str((run or {}).get("status", {}).get("state", ""))


def message(run: Found | None) -> str:
    return str((run or {}).get("status", {}).get("message", ""))


def step_number(run: Found | None) -> int:
    """Optimizer steps done, as `kubectl get` shows them."""
    return int((run or {}).get("status", {}).get("trainerStatus", {}).get("step") or 0)


def evaluated(run: Found, part: str = "metrics") -> dict[str, float]:
    """What the evaluation measured, by name; `baseline` is the same before the training."""
    return {m["name"]: float(m["value"]) for m in run["status"]["evaluation"][part]}


def attempts(run: Found, step: str = STEP_TRAIN) -> list[Object]:
    """The attempts of a step, oldest first."""
    steps = run.get("status", {}).get("steps", [])
    return next((s.get("attempts", []) for s in steps if s["name"] == step), [])


def moment(text: str) -> datetime:
    """A time as it stands in an object."""
    return datetime.fromisoformat(text)


def until(
    kube: Kube, namespace: str, name: str, holds: Callable[[Object], bool], *, seconds: float, what: str
) -> Object:
    """The first version of the run for which `holds` is true. A run that ends otherwise is not waited for."""

    def enough(run: Object | None) -> bool:
        return run is not None and (holds(run) or finished(run))

    run = kube.wait(TRAININGRUNS, namespace, name, enough, seconds=seconds, what=what)
    assert run is not None
    assert holds(run), f"run {name} ended before {what}: {state(run)}: {message(run)}"
    return run


def until_finished(kube: Kube, namespace: str, name: str, *, seconds: float) -> Object:
    """The run once it is Complete or Failed."""
    return until(kube, namespace, name, finished, seconds=seconds, what="the end")


def until_succeeded(kube: Kube, namespace: str, name: str, *, seconds: float) -> Object:
    """The run once it is Complete; a failed run fails the test with its message."""
    run = until_finished(kube, namespace, name, seconds=seconds)
    assert has(run, "Complete"), f"run {name} failed: {message(run)}"
    return run


def jobs(kube: Kube, namespace: str, name: str) -> list[Object]:
    """The run's Jobs."""
    return kube.list(JOBS, namespace, labels=f"{names.RUN_LABEL}={name}")


def pods(kube: Kube, namespace: str, name: str, *, step: str = "") -> list[Object]:
    """The run's pods, oldest first; of one step if it is named."""
    labels = f"{names.RUN_LABEL}={name}" + (f",{names.STEP_LABEL}={step}" if step else "")
    return sorted(
        kube.list(PODS, namespace, labels=labels), key=lambda p: int(p["metadata"]["labels"][names.ATTEMPT_LABEL])
    )


def final_record(pod: Found) -> Object:
    """What the trainer left in the termination message; empty where it left nothing."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        text = container.get("state", {}).get("terminated", {}).get("message", "")
        if text.startswith("{"):
            record: Object = json.loads(text)
            return record
    return {}


def until_cleaned_up(kube: Kube, namespace: str, name: str, *, seconds: float) -> Object:
    """The run once ttlSecondsAfterFinished has been carried out."""

    def clean(run: Object | None) -> bool:
        return bool(run and run["status"].get("cleanedUp"))

    run = kube.wait(TRAININGRUNS, namespace, name, clean, seconds=seconds, what="the clean-up")
    assert run is not None
    return run


def suspend(kube: Kube, namespace: str, name: str, wanted: bool) -> None:
    """Set spec.suspend."""
    kube.merge(TRAININGRUNS, namespace, name, {"spec": {"suspend": wanted}})


def example(topic: str) -> list[Object]:
    """The manifests of an example, as they stand in the repository."""
    folder = ROOT / "examples" / topic
    documents = [d.value for f in sorted(folder.glob("*.yaml")) for d in read_documents(f.read_text())]
    assert documents, f"there is no example {topic}"
    return documents


def create_any(kube: Kube, namespace: str, manifest: Object) -> Object:
    """Create an object of a kind that examples use."""
    resource = {r.kind: r for r in (TRAININGRUNS, CONFIG_MAPS, SECRETS, PVCS)}[manifest["kind"]]
    return kube.create(resource, namespace, manifest)


def leftovers(kube: Kube, namespace: str) -> list[str]:
    """What Trainyard made in the namespace and what is still there."""
    labels = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    found = [
        (r.kind, o["metadata"]["name"]) for r in (JOBS, PVCS, SECRETS) for o in kube.list(r, namespace, labels=labels)
    ]
    found += [("Pod", p["metadata"]["name"]) for p in kube.list(PODS, namespace, labels=names.RUN_LABEL)]
    return sorted(f"{kind} {name}" for kind, name in found)


def until_nothing_is_left(kube: Kube, namespace: str, *, seconds: float) -> None:
    """Until the garbage collector has taken everything of runs that were deleted. Claims go last."""
    for resource in (JOBS, PODS, SECRETS, PVCS):
        labels = names.RUN_LABEL if resource is PODS else f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
        for change in kube.watch(resource, namespace, seconds=seconds, labels=labels, tell_absence=True):
            if change.type == "DELETED" and not kube.list(resource, namespace, labels=labels):
                break
    assert leftovers(kube, namespace) == []


def until_jobs_are_complete(kube: Kube, namespace: str, *, seconds: float) -> None:
    """Until the Job controller has booked what the operator saw at the pods a moment before."""

    def complete() -> bool:
        return all(j.get("status", {}).get("succeeded") == 1 for j in kube.list(JOBS, namespace))

    for _ in kube.watch(JOBS, namespace, seconds=seconds):
        if complete():
            return
    assert complete(), "a Job is not complete"
