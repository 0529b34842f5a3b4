"""The CRDs under test, in a group of their own.

The operator may be running in the same cluster. Under another group it does not see these objects, so a test can give a
run a start time and find it there a moment later; and the CRD that real runs live under is never touched.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.api.server import Answer, ApiServer, NotTheLocalCluster
from trainyard.api import API_VERSION, GROUP, VERSION
from trainyard.api.crd import files

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISH_SECONDS = 30


@pytest.fixture(scope="session")
def server() -> ApiServer:
    try:
        return ApiServer()
    except NotTheLocalCluster as error:
        pytest.fail(str(error))


@dataclass(frozen=True)
class Group:
    """An API group of the test's own with our CRDs in it, and a namespace."""

    name: str
    namespace: str


@dataclass(frozen=True)
class Objects:
    """Objects of one kind under the test's own group."""

    server: ApiServer
    group: str
    namespace: str
    plural: str

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{VERSION}/namespaces/{self.namespace}/{self.plural}"

    def regrouped(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return {**manifest, "apiVersion": manifest["apiVersion"].replace(API_VERSION, f"{self.group}/{VERSION}")}

    def dry_run(self, manifest: dict[str, Any]) -> Answer:
        """What the API server would say to `kubectl create`, with kubectl's strict check of field names."""
        return self.server.request("POST", self.path, self.regrouped(manifest), dryRun="All", fieldValidation="Strict")

    def create(self, manifest: dict[str, Any]) -> Answer:
        return self.server.request("POST", self.path, self.regrouped(manifest), fieldValidation="Strict")

    def patch(self, name: str, change: dict[str, Any], *, status: bool = False, dry_run: bool = False) -> Answer:
        path = f"{self.path}/{name}/status" if status else f"{self.path}/{name}"
        query = {"dryRun": "All"} if dry_run else {}
        return self.server.request("PATCH", path, change, content_type="application/merge-patch+json", **query)


@pytest.fixture(scope="session")
def group(server: ApiServer) -> Iterator[Group]:
    mark = secrets.token_hex(3)
    made = Group(f"test-{mark}.{GROUP}", f"trainyard-api-{mark}")
    names = []
    try:
        for text in files().values():
            crd = yaml.safe_load(text)
            # Other names too: `kubectl get trainingruns` means the real ones, even if these outlive a killed test.
            own = {name: f"test{crd['spec']['names'][name]}" for name in ("plural", "singular")}
            crd["metadata"]["name"] = f"{own['plural']}.{made.name}"
            crd["spec"]["group"] = made.name
            crd["spec"]["names"] |= {"shortNames": [], "categories": [], **own}
            answer = server.request("POST", CRDS, crd)
            assert answer.accepted, answer.message
            names.append(crd["metadata"]["name"])
        server.request("POST", "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
        yield made
    finally:
        for name in names:
            server.request("DELETE", f"{CRDS}/{name}")
        server.request("DELETE", f"/api/v1/namespaces/{made.namespace}")


@pytest.fixture(scope="session")
def runs(server: ApiServer, group: Group) -> Objects:
    return _served(Objects(server, group.name, group.namespace, "testtrainingruns"))


@pytest.fixture(scope="session")
def schedules(server: ApiServer, group: Group) -> Objects:
    return _served(Objects(server, group.name, group.namespace, "testtrainingschedules"))


@pytest.fixture(scope="session")
def sweeps(server: ApiServer, group: Group) -> Objects:
    return _served(Objects(server, group.name, group.namespace, "testtrainingsweeps"))


def _served(objects: Objects) -> Objects:
    deadline = time.monotonic() + ESTABLISH_SECONDS
    while (answer := objects.server.request("GET", objects.path)).code != 200:
        assert time.monotonic() < deadline, f"the CRD is not served after {ESTABLISH_SECONDS} s: {answer.message}"
        time.sleep(0.1)
    return objects
