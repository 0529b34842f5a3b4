"""The CRD under test, in a group of its own.

The operator may be running in the same cluster. Under another group it does not see these objects, so a test can give a
run a start time and find it there a moment later; and the CRD that real runs live under is never touched.
"""

import copy
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from api.server import Answer, ApiServer, NotTheLocalCluster
from trainyard.api import API_VERSION, GROUP, VERSION
from trainyard.api.crd import training_run_crd

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISH_SECONDS = 30


@pytest.fixture(scope="session")
def server() -> ApiServer:
    try:
        return ApiServer()
    except NotTheLocalCluster as error:
        pytest.fail(str(error))


@dataclass(frozen=True)
class Runs:
    """TrainingRuns under the test's own group."""

    server: ApiServer
    group: str
    namespace: str

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{VERSION}/namespaces/{self.namespace}/trainingruns"

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
def runs(server: ApiServer) -> Iterator[Runs]:
    mark = secrets.token_hex(3)
    crd = copy.deepcopy(training_run_crd())
    group = f"test-{mark}.{GROUP}"
    crd["metadata"]["name"] = f"trainingruns.{group}"
    crd["spec"]["group"] = group
    crd["spec"]["names"] |= {"shortNames": [], "categories": []}
    made = server.request("POST", CRDS, crd)
    assert made.accepted, made.message
    namespace = f"trainyard-api-{mark}"
    try:
        server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        under_test = Runs(server, group, namespace)
        _until_served(under_test)
        yield under_test
    finally:
        server.request("DELETE", f"{CRDS}/trainingruns.{group}")
        server.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _until_served(runs: Runs) -> None:
    deadline = time.monotonic() + ESTABLISH_SECONDS
    while (answer := runs.server.request("GET", runs.path)).code != 200:
        assert time.monotonic() < deadline, f"the CRD is not served after {ESTABLISH_SECONDS} s: {answer.message}"
        time.sleep(0.1)
