"""The exports of the examples committee and trm-homelab, as they stand there, of models that are trained for a moment.

Only addresses are other ones: the servers are real, on this machine.
"""

from __future__ import annotations

import copy
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import installed, runs
from tests.e2e.chains import reachable
from tests.e2e.kube import CONFIG_MAPS, DEPLOYMENTS, Kube, Object
from tests.servers import sinks
from trainyard.controller.kube.resources import Resource

pytestmark = [pytest.mark.load, pytest.mark.servers, pytest.mark.timeout(1800)]
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")


def named(topic: str, name: str) -> Object:
    """An object of an example."""
    return copy.deepcopy(next(one for one in runs.example(topic) if one["metadata"]["name"] == name))


def with_exports(run: Object, exports: list[Any], **training: Any) -> Object:
    """The run with these exports, trained for a moment, and judged by no gate."""
    spec = run["spec"]
    spec["training"].update(training)
    spec.pop("evaluation", None)
    return {"metadata": run["metadata"], "spec": {**spec, "exports": exports}}


def test_a_committee_is_served_by_ollama_and_measured(kube: Kube, space: str, tmp_path: Path) -> None:
    exports = named("committee", "committee")["spec"]["exports"]
    exports[1]["ollama"]["url"] = f"http://ollama.{space}.svc:11434"
    run = with_exports(named("committee", "committee-small"), exports, maxSteps=2)
    run["spec"]["phases"][2]["training"].pop("maxSteps")
    with sinks.serving(tmp_path, wanted=("ollama",)) as servers:
        reachable(kube, space, servers)
        runs.apply(kube, space, run)
        done = runs.until_succeeded(kube, space, "committee-small", seconds=1500)
        with urllib.request.urlopen(f"{servers.urls['ollama']}/api/tags", timeout=30) as answer:
            models = {one["name"]: one["digest"] for one in json.load(answer)["models"]}
    states = {one["name"]: (one["state"], one.get("digest")) for one in done["status"]["exports"]}
    assert {state for state, _ in states.values()} == {"Succeeded"}, done["status"]["exports"]
    assert list(models) == [f"committee:{done['status']['model']['version']}"]
    assert states["serve"][1] in (*models.values(), *(f"sha256:{digest}" for digest in models.values()))


def test_trm_homelab_reaches_bucket_configmap_and_deployment(kube: Kube, space: str, tmp_path: Path) -> None:
    schedule = next(one for one in runs.example("trm-homelab") if one["kind"] == "TrainingSchedule")
    exports = copy.deepcopy(schedule["spec"]["template"]["spec"]["exports"])
    exports[0]["s3"]["endpoint"] = f"http://s3.{space}.svc:7070"
    config, deployment = (
        copy.deepcopy(next(one for one in runs.example("trm-homelab") if one["kind"] == kind))
        for kind in ("ConfigMap", "Deployment")
    )
    deployment["spec"]["replicas"] = 0  # its image is the user's own
    may_write(kube, space)
    kube.create(CONFIG_MAPS, space, config)
    kube.create(DEPLOYMENTS, space, deployment)
    run = with_exports(named("trm-homelab", "trm-homelab-small"), exports, numTrainEpochs=2)
    with sinks.serving(tmp_path, wanted=("s3",), buckets=("trm-models",)) as servers:
        reachable(kube, space, servers)
        runs.apply(kube, space, run)
        done = runs.until_succeeded(kube, space, "trm-homelab-small", seconds=900)
        uri, store = done["status"]["outputs"]["store"], servers.store()
        latest = json.loads(store.get_object(Bucket="trm-models", Key="latest.json")["Body"].read())
        listed = store.list_objects_v2(Bucket="trm-models", Prefix=uri.removeprefix("s3://trm-models/"))["Contents"]
    assert latest["uri"] == uri
    assert {"manifest.json", "model.safetensors"} <= {one["Key"].rpartition("/")[2] for one in listed}
    held = kube.need(CONFIG_MAPS, space, "trm-homelab")["data"]
    version = done["status"]["model"]["version"]
    assert held == {"OWNER": "homelab", "MODEL_URI": uri, "MODEL_VERSION": version}
    template = kube.need(DEPLOYMENTS, space, "trm-homelab")["spec"]["template"]
    assert template["metadata"].get("annotations"), "its pods start anew"


def may_write(kube: Kube, space: str) -> None:
    """What the chart value rbac.exports grants, in this namespace alone."""
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch", "update"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch", "update"]},
    ]
    kube.create(ROLES, space, {"metadata": {"name": "exports"}, "rules": rules})
    whom = {"kind": "ServiceAccount", "name": installed.NAME, "namespace": installed.NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "exports"}
    kube.create(BINDINGS, space, {"metadata": {"name": "exports"}, "subjects": [whom], "roleRef": role})
