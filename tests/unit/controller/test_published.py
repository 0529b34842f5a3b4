"""Exports of the operator's own, down to the requests: what is written, in which order, and what a refusal costs."""

from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import manifest
from tests.unit.controller.test_late_status import KEY, World
from tests.unit.controller.test_refused_status import reconciler, status
from trainyard.controller.kube.cluster import Cluster

DONE = {"number": 1, "state": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}
TRAINED = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Training",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "steps": [{"name": name, "state": "Succeeded", "attempts": [DONE]} for name in ("prepare", "train")],
}
TARGET = {"name": "agent", "data": {"VERSION": "{version}"}, "rolloutRestart": {"deployment": "agent"}}


def put_run(kube: FakeKube, **export: Any) -> None:
    run = manifest(exports=[{"name": "tell", "configMap": TARGET, **export}], evaluation={"enabled": False})
    kube.put("trainingruns", run | {"status": TRAINED})
    metadata = {"name": "agent", "namespace": "lab"}
    kube.put("configmaps", {"metadata": dict(metadata), "data": {"other": "stays"}})
    kube.put("deployments", {"metadata": dict(metadata), "spec": {"template": {"metadata": {}}}})


async def looks(kube: FakeKube, cluster: Cluster, *, seconds: float = 1) -> list[str]:
    """Some looks; returns what was written besides statuses."""
    clock = FakeClock()
    looking = reconciler(cluster, World(), clock)
    for _ in range(5):
        await looking.reconcile(KEY)
        await clock.advance(seconds)
    return [w for w in kube.writes() if w.endswith(("configmaps", "deployments"))]


async def test_the_reader_is_started_anew_after_what_it_reads(kube: FakeKube, cluster: Cluster):
    put_run(kube)
    assert await looks(kube, cluster) == ["PATCH configmaps", "PATCH deployments"], "each once"
    data = kube.objects["configmaps"][KEY[0], "agent"]["data"]
    assert data == {"other": "stays", "VERSION": "v20260101-11112222"}
    assert status(kube)["state"] == "Succeeded"
    assert status(kube)["exports"][0]["uri"] == "configmap://lab/agent"


@pytest.mark.parametrize("refused", ["configmaps", "deployments"])
async def test_what_the_api_server_refuses_fails_the_export_and_leaves_the_result(
    refused: str, kube: FakeKube, cluster: Cluster
):
    put_run(kube, backoffLimit=0)
    kube.refuses = lambda plural, body: plural == refused
    await looks(kube, cluster)
    now = status(kube)
    assert now["exports"][0]["state"] == "Failed"
    assert f"the operator may not patch {refused} lab/agent" in now["exports"][0]["message"]
    assert (now["state"], now["failure"]["reason"]) == ("Failed", "ExportFailed")
    assert now["outputs"]["model"].endswith("/model")


async def test_what_is_refused_for_a_while_is_done_later(kube: FakeKube, cluster: Cluster):
    put_run(kube)
    kube.refuses = lambda plural, body: plural == "configmaps"
    await looks(kube, cluster)
    assert status(kube)["exports"][0]["state"] == "Waiting"
    kube.refuses = lambda plural, body: False
    await looks(kube, cluster, seconds=400)
    assert status(kube)["state"] == "Succeeded"
