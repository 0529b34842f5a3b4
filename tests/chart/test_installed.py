"""The chart in the real cluster: accepted in every mode, and the installed operator's rights as the API server sees them."""

import subprocess
from collections.abc import Callable

import pytest

from tests.api.server import KUBECONFIG, ApiServer
from tests.chart.conftest import CHART

Helm = Callable[..., subprocess.CompletedProcess[str]]
RELEASE, NAMESPACE = "trainyard", "trainyard-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@pytest.fixture(scope="module")
def server() -> ApiServer:
    return ApiServer()


@pytest.mark.api
@pytest.mark.parametrize(
    "values",
    [
        (),
        ("watchNamespaces={default,kube-public}", "rbac.readNodes=false", "rbac.aggregate=false"),
        ("networkPolicy.trainingPods.namespaces={default}", "networkPolicy.egress[0].ports[0].port=6443"),
        ("admissionPolicy.podSecurity=baseline",),
        ("networkPolicy.enabled=false", "admissionPolicy.enabled=false", "rbac.readCRDs=false"),
    ],
)
def test_the_api_server_accepts_what_the_chart_renders(values: tuple[str, ...], helm: Helm, server: ApiServer) -> None:
    """A dry run under another name, so that nothing that is installed is in its way."""
    settings = [word for value in (*values, "crds.install=false") for word in ("--set", value)]
    where = ("--kubeconfig", str(KUBECONFIG), "--namespace", "default")
    result = helm("install", "dry-run-of-the-chart", str(CHART), *where, *settings, "--dry-run=server")
    assert result.returncode == 0, result.stderr
    assert "kubectl get trainingruns -w" in result.stdout


def may(server: ApiServer, verb: str, group: str, resource: str, *, namespace: str) -> bool:
    subresource = resource.partition("/")[2]
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource.partition("/")[0],
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": ACCOUNT, "resourceAttributes": attributes},
    }
    return bool(server.request("POST", REVIEWS, review).body["status"]["allowed"])


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("verb", "group", "resource", "namespace", "allowed"),
    [
        ("watch", "trainyard.dev", "trainingruns", "default", True),
        ("update", "trainyard.dev", "trainingruns/status", "default", True),
        ("create", "batch", "jobs", "default", True),
        ("create", "", "persistentvolumeclaims", "default", True),
        ("get", "", "secrets", "default", True),
        ("create", "coordination.k8s.io", "leases", NAMESPACE, True),
        ("patch", "batch", "jobs", "default", False),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions", "", False),
        ("list", "", "secrets", "default", False),
        ("delete", "", "persistentvolumeclaims", "default", False),
        ("delete", "", "pods", "default", True),  # whose trainer has ended beside a container that a cluster has added
        ("create", "", "pods", "default", False),
        ("delete", "trainyard.dev", "trainingschedules", "default", False),
        ("update", "trainyard.dev", "trainingruns", "default", False),
        ("create", "coordination.k8s.io", "leases", "default", False),
        ("create", "rbac.authorization.k8s.io", "rolebindings", "default", False),
        ("patch", "", "configmaps", "default", True),
        ("list", "", "configmaps", "default", False),
        ("delete", "", "configmaps", "default", False),
    ],
)
def test_the_operator_may_do_its_work_and_no_more(
    verb: str, group: str, resource: str, namespace: str, allowed: bool, server: ApiServer
) -> None:
    assert may(server, verb, group, resource, namespace=namespace) is allowed


@pytest.mark.e2e
def test_helm_test_finds_a_working_operator(helm: Helm) -> None:
    result = helm(
        "test", RELEASE, "--namespace", NAMESPACE, "--kubeconfig", str(KUBECONFIG), "--timeout", "2m", "--logs"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAIL" not in result.stdout


@pytest.mark.e2e
def test_the_operator_runs_where_only_restricted_pods_may(server: ApiServer) -> None:
    labels = server.request("GET", f"/api/v1/namespaces/{NAMESPACE}").body["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    deployment = server.request("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}").body
    assert deployment["status"].get("readyReplicas") == 1


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("role", "verb", "allowed"), [("edit", "create", True), ("view", "get", True), ("view", "create", False)]
)
def test_the_clusters_own_roles_include_training_runs(role: str, verb: str, allowed: bool, server: ApiServer) -> None:
    rules = server.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}").body["rules"]
    granted = {v for r in rules if "trainingruns" in r.get("resources", ()) for v in r["verbs"]}
    assert (verb in granted) is allowed
