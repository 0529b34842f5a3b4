"""The installed release's admission policies, as three people meet them with kubectl.

What each policy lets in is tested in tests/api, case by case. Here: it holds in the release as it is installed by default,
in the API group that people use, and the operator's own account is not held up by it.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests import ROOT
from tests.api.server import KUBECONFIG
from tests.e2e import runs
from tests.e2e.installed import NAME
from tests.e2e.kube import CONFIG_MAPS, SERVICE_ACCOUNTS, Kube, Object
from trainyard.api import API_VERSION
from trainyard.api.schedule.trainingschedule import SCHEDULE_LABEL
from trainyard.controller.kube.resources import SECRETS, TRAININGRUNS, TRAININGSCHEDULES, Resource

EDITOR, EDIT = "alone@example.org", "edit@example.org"
FLUX = "kustomize-controller"
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
EXAMPLES = sorted(p for p in ROOT.glob("examples/*/*.yaml") if API_VERSION in p.read_text())


@pytest.fixture(scope="module")
def place(kube: Kube, wide_space: str) -> str:
    """A namespace with a Secret and a ConfigMap; with somebody who has the editor's role alone, somebody with edit, and the
    account of Flux for a tenant."""
    users: dict[str, tuple[Object, tuple[str, ...]]] = {
        "alone": ({"kind": "User", "name": EDITOR}, (f"{NAME}-editor",)),
        "edit": ({"kind": "User", "name": EDIT}, ("edit",)),
        "flux": ({"kind": "ServiceAccount", "name": FLUX, "namespace": wide_space}, ("edit",)),
    }
    kube.create(SERVICE_ACCOUNTS, wide_space, {"metadata": {"name": FLUX}})
    for name, (subject, roles) in users.items():
        for role in roles:
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
            kube.create(BINDINGS, wide_space, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})
    kube.create(SECRETS, wide_space, {"metadata": {"name": "theirs"}, "stringData": {"token": "x"}})
    kube.create(CONFIG_MAPS, wide_space, {"metadata": {"name": "theirs"}, "data": {"level": "1"}})
    return wide_space


def account(namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{FLUX}"


def apply(namespace: str, user: str, *manifests: Object) -> subprocess.CompletedProcess[str]:
    """`kubectl apply` as somebody, without writing anything."""
    text = "\n---\n".join(json.dumps(manifest) for manifest in manifests)
    words = ("apply", "--dry-run=server", "--as", user, "-n", namespace, "-f", "-")
    program = str(KUBECONFIG.parent / "bin/kubectl")
    return subprocess.run(
        [program, "--kubeconfig", str(KUBECONFIG), *words], input=text, capture_output=True, text=True, timeout=60
    )


def run_with(**spec: Any) -> Object:
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", **runs.tiny("judged", **spec)}


def schedule_with(**spec: Any) -> Object:
    template = {"spec": run_with(**spec)["spec"]}
    metadata = {"name": "judged"}
    whole = {"intervalSeconds": 86400, "suspend": True, "template": template}
    return {"apiVersion": API_VERSION, "kind": "TrainingSchedule", "metadata": metadata, "spec": whole}


def sweep_with(**spec: Any) -> Object:
    whole = {
        "suspend": True,
        "numTrials": 1,
        "objective": {"metric": "loss"},
        "parameters": [{"name": "training.seed", "int": {"min": 1, "max": 9}}],
        "template": {"spec": run_with(**spec)["spec"]},
    }
    return {"apiVersion": API_VERSION, "kind": "TrainingSweep", "metadata": {"name": "judged"}, "spec": whole}


def volume(**source: Any) -> Object:
    return {"podTemplate": {"volumes": [{"name": "x", **source}]}}


POWERS: dict[str, Object] = {
    "root": {"podTemplate": {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}},
    "privileged": {"podTemplate": {"containerSecurityContext": {"privileged": True}}},
    "the node's files": volume(hostPath={"path": "/"}),
    "a token": volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
    "every taint": {"placement": {"tolerations": [{"operator": "Exists"}]}},
}
BORROWED: dict[str, Object] = {
    "a Secret": {"podTemplate": {"envFrom": [{"secretRef": {"name": "theirs"}}]}},
    "a ConfigMap": volume(configMap={"name": "theirs"}),
    "a ServiceAccount": {"podTemplate": {"serviceAccountName": FLUX}},
}


@pytest.mark.parametrize("build", [run_with, schedule_with, sweep_with], ids=["run", "schedule", "sweep"])
@pytest.mark.parametrize("spec", POWERS.values(), ids=POWERS)
def test_nobody_gets_more_than_a_restricted_pod(spec: Object, build: Any, place: str) -> None:
    for user in (EDITOR, EDIT, account(place)):
        done = apply(place, user, build(**spec))
        assert done.returncode != 0, done.stdout
        assert f"ValidatingAdmissionPolicy '{NAME}-" in done.stderr


@pytest.mark.parametrize("build", [run_with, schedule_with, sweep_with], ids=["run", "schedule", "sweep"])
@pytest.mark.parametrize("spec", BORROWED.values(), ids=BORROWED)
def test_the_editors_role_alone_lends_nothing_that_it_does_not_have(spec: Object, build: Any, place: str) -> None:
    done = apply(place, EDITOR, build(**spec))
    assert done.returncode != 0, done.stdout
    assert f"{EDITOR} may not" in done.stderr
    for user in (EDIT, account(place)):
        done = apply(place, user, build(**spec))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", [EDITOR, EDIT])
def test_an_ordinary_run_is_everybodys(user: str, place: str) -> None:
    done = apply(place, user, run_with(), schedule_with())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_examples_pass_as_they_stand(file: Any, place: str) -> None:
    kinds = [d.value for d in runs.read_documents(file.read_text())]
    manifests = [
        {**d, "metadata": {**d["metadata"], "namespace": place}} for d in kinds if d["apiVersion"] == API_VERSION
    ]
    done = apply(place, EDIT, *manifests)
    assert done.returncode == 0, done.stderr


def test_the_operator_makes_the_run_that_somebody_else_was_allowed_to_write(kube: Kube, place: str) -> None:
    """The operator itself may not read ConfigMaps; the schedule's author may, and was asked when he wrote it."""
    env = [{"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "theirs", "key": "level"}}}]
    manifest = schedule_with(podTemplate={"env": env}, mode="DryRun")
    manifest["metadata"] = {"name": "lent", "annotations": {"trainyard.dev/run-now": "1"}}
    author = Kube(kube.server.acting_as(EDIT))
    author.create(TRAININGSCHEDULES, place, manifest)
    for change in kube.watch(TRAININGRUNS, place, seconds=60, labels=f"{SCHEDULE_LABEL}=lent"):
        if change.type == "ADDED":
            break
    (made,) = kube.list(TRAININGRUNS, place, labels=f"{SCHEDULE_LABEL}=lent")
    assert env[0] in made["spec"]["podTemplate"]["env"]
    kube.delete(TRAININGSCHEDULES, place, "lent")


def test_a_run_that_somebody_may_not_write_he_may_still_stop(kube: Kube, place: str) -> None:
    body = {**runs.tiny("shared", **BORROWED["a Secret"]), "apiVersion": API_VERSION, "kind": "TrainingRun"}
    body["spec"] |= {"mode": "DryRun", "suspend": True}
    Kube(kube.server.acting_as(EDIT)).create(TRAININGRUNS, place, body)
    other = Kube(kube.server.acting_as(EDITOR))
    other.merge(TRAININGRUNS, place, "shared", {"spec": {"suspend": False}})
    other.merge(TRAININGRUNS, place, "shared", {"spec": {"suspend": True}})
    with pytest.raises(
        AssertionError, match=r"spec\.podTemplate\.envFrom\[\]\.secretRef\.name names the Secret theirs"
    ):
        other.merge(TRAININGRUNS, place, "shared", {"spec": {"image": "example.org/mine:1"}})
    kube.delete(TRAININGRUNS, place, "shared")
