"""A Deployment makes room for a run, down to the requests: what is written, in which order, and what a refusal costs."""

from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.test_yielding import deployment
from tests.unit.controller.runs.world import manifest
from tests.unit.controller.test_late_status import KEY, World
from tests.unit.controller.test_published import TRAINED
from tests.unit.controller.test_refused_status import reconciler, status
from trainyard.api import names
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.errors import Conflict

PREPARED = {**TRAINED, "steps": [*TRAINED["steps"][:1], {"name": "train", "state": "Waiting"}]}


def put_run(kube: FakeKube) -> None:
    run = manifest(placement={"yieldFrom": [{"deployment": "ollama"}]}, evaluation={"enabled": False})
    kube.put("trainingruns", run | {"status": PREPARED})
    kube.put("deployments", serving(2))
    ours = {"labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY}}
    kube.put("persistentvolumeclaims", {"metadata": {"name": "tiny-checkpoints", "namespace": "lab", **ours}})


def serving(replicas: int) -> dict[str, Any]:
    made = deployment(replicas)
    made["spec"]["selector"] = {"matchLabels": {"app": "ollama"}}
    return made


async def look(kube: FakeKube, cluster: Cluster) -> dict[str, Any]:
    await reconciler(cluster, World(), FakeClock()).reconcile(KEY)
    return status(kube)


async def test_the_job_is_made_when_the_deployment_is_down(kube: FakeKube, cluster: Cluster) -> None:
    put_run(kube)
    now = await look(kube, cluster)
    assert now["message"] == "waiting for Deployment ollama (its pods) to make room for the training"
    assert [w for w in kube.writes() if w.endswith(("deployments", "jobs"))] == ["PATCH deployments"]
    there = kube.objects["deployments"]["lab", "ollama"]
    assert there["spec"]["replicas"] == 0
    there["status"] = {}
    kube.put("deployments", there)
    await look(kube, cluster)
    assert [w for w in kube.writes() if w.endswith(("deployments", "jobs"))] == ["PATCH deployments", "POST jobs"]


async def test_somebody_writes_the_deployment_at_the_same_moment(kube: FakeKube, cluster: Cluster) -> None:
    put_run(kube)
    kept = cluster.list

    def served() -> dict[str, Any]:
        return kube.objects["deployments"]["lab", "ollama"]

    async def while_pods_are_listed(resource: Any, *asked: Any, **how: Any) -> Any:
        if "app=ollama" in (how.get("label_selector") or "") and served()["spec"]["replicas"] == 2:
            kube.put("deployments", serving(5))
        return await kept(resource, *asked, **how)

    cluster.list = while_pods_are_listed  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await look(kube, cluster)
    assert served()["spec"]["replicas"] == 5, "nothing was written over it"
    await look(kube, cluster)
    assert served()["spec"]["replicas"] == 0
