"""The chart's admission policies in the test's own API group, and people with various rights.

What a policy of the chart says about TrainingRuns is said about the kinds of the test's group here, in a namespace of its
own, so that neither an installed release nor another test meets it.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests import ROOT
from tests.api.conftest import Group, Objects
from tests.api.manifests import SCRATCH, run
from tests.api.server import KUBECONFIG, Answer, ApiServer
from trainyard.api import GROUP
from trainyard.api.names import APPROVED_ANNOTATION

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
KINDS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
ACTIVE_SECONDS = 60
OPERATOR_NAMESPACE = "trainyard-system"

READABLE = ("store", "hub", "mlflow", "pull", "s", "git", "lab", "ollama")
"""Secrets that the user `named` may read; there are no others for him."""


@dataclass(frozen=True)
class Place:
    """A namespace in which the policies hold."""

    server: ApiServer
    group: Group
    namespace: str
    release: str

    def run(self, user: str, spec: dict[str, Any]) -> Answer:
        """What the API server says to a new run of this user."""
        return self.objects("testtrainingruns", user).dry_run(run(spec))

    def apply(self, user: str, manifest: dict[str, Any]) -> Answer:
        """The same for a whole manifest of either kind."""
        return self.objects(f"test{manifest['kind'].lower()}s", user).dry_run(manifest)

    def objects(self, plural: str, user: str) -> Objects:
        return Objects(self.server.acting_as(user) if user else self.server, self.group.name, self.namespace, plural)

    def somebody_who_may_read(self, names: list[str]) -> str:
        """A new user with the editor's role and the right to these Secrets; the rights hold when he is given."""
        name = f"reader-{secrets.token_hex(3)}"
        user = f"{name}@example.org"
        rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}
        _need(
            self.server,
            f"{RBAC}/namespaces/{self.namespace}/roles",
            {"metadata": {"name": name}, "rules": [rule]},
        )
        _bind(self, "Role", name, user)
        _bind(self, "ClusterRole", f"{self.release}-trainyard-editor", user)
        _until(
            lambda: self.run(user, {**SCRATCH, "podTemplate": {"envFrom": [{"secretRef": {"name": names[-1]}}]}}), ""
        )
        return user

    @property
    def operator(self) -> str:
        return f"system:serviceaccount:{OPERATOR_NAMESPACE}:{self.release}-trainyard"

    @property
    def tenant(self) -> str:
        """The ServiceAccount of Flux that applies what stands in a tenant's repository."""
        return f"system:serviceaccount:{self.namespace}:flux"

    @property
    def flux(self) -> str:
        """The one that Flux has where nothing is locked down."""
        return f"system:serviceaccount:{self.namespace}:kustomize-controller"


EDITOR, NAMED, EDIT = "editor@example.org", "named@example.org", "edit@example.org"
"""With the chart's role trainyard-editor alone; with some rights by name besides; with the cluster's role edit besides."""


@contextmanager
def place(server: ApiServer, group: Group, *values: str) -> Iterator[Place]:
    """A namespace with the chart's policies, rendered with these values; active when it is given."""
    mark = secrets.token_hex(3)
    made = Place(server, group, f"pol-{mark}", f"pol-{mark}")
    _need(server, "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    paths: list[str] = []
    try:
        rendered = _render(made, *values)
        for body in rendered:
            if path := KINDS.get(body["kind"]):
                _need(server, path, body)
                paths.append(f"{path}/{body['metadata']['name']}")
        paths += _people(made, next(o for o in rendered if o["metadata"]["name"].endswith("-editor")))
        _until_active(made, [o for o in rendered if o["kind"] == "ValidatingAdmissionPolicy"])
        yield made
    finally:
        for path in paths:
            server.request("DELETE", path)
        server.request("DELETE", f"/api/v1/namespaces/{made.namespace}")


def _render(made: Place, *values: str) -> list[dict[str, Any]]:
    """The chart's objects, with the test's group in the place of the real one."""
    settings = [word for v in (f"watchNamespaces={{{made.namespace}}}", *values) for word in ("--set", v)]
    helm = str(KUBECONFIG.parent / "bin/helm")
    where = (str(ROOT / "charts/trainyard"), "--namespace", OPERATOR_NAMESPACE)
    done = subprocess.run([helm, "template", made.release, *where, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [_regrouped(o, made.group) for o in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if o]


def _regrouped(body: dict[str, Any], group: Group) -> dict[str, Any]:
    rules = [*body.get("rules", ()), *body.get("spec", {}).get("matchConstraints", {}).get("resourceRules", ())]
    for rule in rules:
        if rule.get("apiGroups") == [GROUP]:
            rule["apiGroups"] = [group.name]
            rule["resources"] = [f"test{resource}" for resource in rule["resources"]]
    return body


def _people(made: Place, editor: dict[str, Any]) -> list[str]:
    """Give everybody his rights; the paths of what was made outside of the namespace."""
    server, name = made.server, editor["metadata"]["name"]
    # Without its labels, by which it would join the cluster's own roles.
    _need(server, f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": editor["rules"]})
    account = "system:serviceaccount:"
    for user in (EDITOR, NAMED, EDIT, made.operator, made.tenant):
        _bind(made, "ClusterRole", name, user)
    for user in (EDIT, made.tenant):
        _bind(made, "ClusterRole", "edit", user)
    rules = [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(READABLE), "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["settings"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["sa"], "verbs": ["use"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["agent"], "verbs": ["patch"]},
        {"apiGroups": [GROUP], "resources": ["trainingruns"], "verbs": ["approve"]},
    ]
    _need(server, f"{RBAC}/namespaces/{made.namespace}/roles", {"metadata": {"name": "named"}, "rules": rules})
    _bind(made, "Role", "named", NAMED)
    whole = f"{name}-flux"
    subject = {
        "kind": "ServiceAccount",
        "namespace": made.namespace,
        "name": made.flux.removeprefix(account).split(":")[1],
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": whole}, "roleRef": reference, "subjects": [subject]}
    _need(server, f"{RBAC}/clusterrolebindings", binding)
    return [f"{RBAC}/clusterroles/{name}", f"{RBAC}/clusterrolebindings/{whole}"]


def _bind(made: Place, kind: str, role: str, user: str) -> None:
    body = {
        "metadata": {"generateName": "people-"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    _need(made.server, f"{RBAC}/namespaces/{made.namespace}/rolebindings", body)


def _need(server: ApiServer, path: str, body: dict[str, Any]) -> None:
    answer = server.request("POST", path, body, fieldValidation="Strict")
    assert answer.accepted, f"{path}: {answer.message}"


def _pod(**fields: Any) -> dict[str, Any]:
    return {"podTemplate": fields}


def approved(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same with the annotation that lets a run begin."""
    metadata = {**manifest["metadata"], "annotations": {APPROVED_ANNOTATION: "yes"}}
    return {**manifest, "metadata": metadata}


def _until_active(made: Place, policies: list[dict[str, Any]]) -> None:
    """A policy holds some time after it was made; rights too."""
    written = {"name": "probe", "data": {"a": "b"}}
    # Of several policies that refuse, the API server names one; so each probe breaks one alone, and NAMED may change `agent`.
    restarted = {**written, "name": "agent", "rolloutRestart": {"deployment": "probe"}}
    probes: dict[str, dict[str, Any]] = {
        "-written-configmaps": {"exports": [{"name": "e", "configMap": written}]},
        "-restarted-deployments": {"exports": [{"name": "e", "configMap": restarted}]},
        "-written-inferenceservices": {
            "exports": [{"name": "e", "kserve": {"inferenceService": "probe", "storageUri": "s3://b/m"}}]
        },
        "-yielding-deployments": {"placement": {"yieldFrom": [{"deployment": "probe"}]}},
        "-pods": _pod(securityContext={"runAsUser": 0}, containerSecurityContext={"privileged": True}),
        "-secrets": _pod(envFrom=[{"secretRef": {"name": "probe"}}]),
        "-configmaps": _pod(envFrom=[{"configMapRef": {"name": "probe"}}]),
        "-serviceaccounts": _pod(serviceAccountName="probe"),
    }
    for policy in policies:
        name = policy["metadata"]["name"]
        if name.endswith("-approvals"):
            _until(lambda: made.apply(EDITOR, approved(run(SCRATCH))), name)
            continue
        spec = next(spec for suffix, spec in probes.items() if name.endswith(suffix))
        user = NAMED if name.endswith("-restarted-deployments") else EDITOR
        _until(lambda s=spec, u=user: made.run(u, {**SCRATCH, **s}), name)  # type: ignore[misc]
    for user in (EDITOR, NAMED, EDIT, made.tenant, made.flux, made.operator):
        _until(lambda u=user: made.run(u, SCRATCH), "")  # type: ignore[misc]


def _until(ask: Callable[[], Answer], refused_by: str) -> None:
    deadline = time.monotonic() + ACTIVE_SECONDS
    while True:
        answer = ask()
        if refused_by in answer.message if refused_by else answer.accepted:
            return
        assert time.monotonic() < deadline, f"{refused_by or 'rights'}: {json.dumps(answer.body)}"
        time.sleep(0.1)
