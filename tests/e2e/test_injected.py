"""A container that a webhook puts beside the trainer and that never ends by itself, as a service mesh does it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import Change, Kube, Object
from tests.e2e.recording import Recording
from tests.e2e.scripted import IMAGE
from tests.webserver import Asked, Reply, own_authority, web
from trainyard.api import names
from trainyard.controller.kube.resources import PODS, Resource

WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
FREE_SECONDS = 10.0
PROXY: Object = {
    "name": "mesh-proxy",
    "image": IMAGE,
    "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1; done"],
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}

pytestmark = pytest.mark.timeout(600)


def injected(asked: Asked) -> Reply:
    """The answer of the mesh: its proxy goes first."""
    review = json.loads(asked.body)
    patch = [{"op": "add", "path": "/spec/containers/0", "value": PROXY}]
    answer = {
        "uid": review["request"]["uid"],
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
    }
    return Reply({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


def webhook(name: str, *, url: str, authority: Path, namespace: str) -> Object:
    return {
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "mesh.trainyard.test",
                "clientConfig": {"url": url, "caBundle": base64.b64encode(authority.read_bytes()).decode()},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }


def test_a_step_ends_with_its_trainer_and_the_gpu_is_free(kube: Kube, space: str, tmp_path: Path) -> None:
    tls, authority = own_authority(tmp_path)
    gpu = {**runs.SMALL, "limits": {**runs.SMALL["limits"], "nvidia.com/gpu": 1}}
    with web(injected, tls=tls) as mesh:
        kube.create(WEBHOOKS, None, webhook(space, url=f"{mesh.url}/mutate", authority=authority, namespace=space))
        try:
            with Recording(kube, PODS, space) as record:
                spec = {"training": {"maxSteps": 20}, "placement": {"nodeNames": ["arcanine"]}, "resources": gpu}
                runs.apply(kube, space, runs.tiny("mesh", **spec))
                run = runs.until_succeeded(kube, space, "mesh", seconds=400)
                held = {name: seconds_held(record, name) for name in record.created()}
        finally:
            kube.delete(WEBHOOKS, None, space)
    assert {step["state"] for step in run["status"]["steps"]} == {"Succeeded"}
    assert run["status"].get("restarts", 0) == 0
    assert len(held) == 3, "prepare, train and evaluate, once each"
    measure.record("injected", seconds_held={name.split("-")[1]: round(seconds, 1) for name, seconds in held.items()})
    assert max(held.values()) <= FREE_SECONDS, held


def seconds_held(record: Recording, name: str) -> float:
    """From the trainer's end to that of the pod, by the clock of the recording."""

    def first(holds: Callable[[Change], bool]) -> Change:
        changes = record.follow(seconds=60)
        return next(c for c in changes if c.object["metadata"]["name"] == name and holds(c))

    ended, over = first(lambda c: trainer_ended(c.object)), first(pod_is_over)
    statuses = record.versions(name)[-1]["status"]["containerStatuses"]
    assert any(status["name"] == "mesh-proxy" for status in statuses)
    return over.at - ended.at


def pod_is_over(change: Change) -> bool:
    return change.type == "DELETED" or change.object["status"].get("phase") in ("Succeeded", "Failed")


def trainer_ended(pod: Object) -> bool:
    found = pod["status"].get("containerStatuses") or ()
    return any(s["name"] == names.TRAINER_CONTAINER and "terminated" in s["state"] for s in found)
