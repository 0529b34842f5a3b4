"""A pod that waits for a claim names claim and class; a Job that waits in a queue to which nobody listens says so."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import World, condition, manifest
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import Resource
from trainyard.controller.manifests.storage import claims
from trainyard.controller.runs.queues import why_nobody_listens
from trainyard.controller.runs.views import JobView, PodView
from trainyard.controller.runs.volumes import Unbound, Volumes, look
from trainyard.controller.runs.waiting import Waited, why_waiting

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = JobView(name="r-train-1", uid="j", step="train", attempt=1, created=START)
UNBOUND = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
FULL = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
NOT_FOUND = 'storageclass.storage.k8s.io "fast-ssd" not found'


def claim(
    kube: FakeKube, *, phase: str = "Pending", complaint: str = "", node: str = "", reason: str = "ProvisioningFailed"
) -> None:
    annotations = {"volume.kubernetes.io/selected-node": node} if node else {}
    metadata = {"name": "tiny-checkpoints", "namespace": "lab", "annotations": annotations}
    made = kube.put(
        "persistentvolumeclaims",
        {"metadata": metadata, "spec": {"storageClassName": "fast-ssd"}, "status": {"phase": phase}},
    )
    if complaint:
        event = {"type": "Normal" if reason == "FailedBinding" else "Warning", "reason": reason, "message": complaint}
        event |= {"metadata": {"name": "e", "namespace": "lab"}, "involvedObject": {"uid": made["metadata"].get("uid")}}
        kube.put("events", event)


async def volumes(kube: FakeKube, cluster: Cluster, said: str = UNBOUND) -> Volumes:
    run = World(run=manifest(storage={"checkpoints": {"storageClassName": "fast-ssd"}})).observe().run
    return await look(cluster, "lab", claims(run), said=said)


async def test_a_class_that_does_not_exist_is_named_with_its_claim(kube: FakeKube, cluster: Cluster) -> None:
    claim(kube, complaint=NOT_FOUND)
    found = await volumes(kube, cluster)
    pod = PodView(name="p", uid="u", job="r-train-1", created=START, unschedulable=UNBOUND)
    wait = why_waiting(JOB, pod, now=START, about=Waited(volumes=found))
    assert wait is not None
    assert (wait.reason, wait.hopeless) == ("Volume", True)
    assert wait.message == (
        f"claim tiny-checkpoints is not bound (storageClassName fast-ssd): {NOT_FOUND}; create StorageClass fast-ssd, or delete "
        "this run and name another class in spec.storage.checkpoints.storageClassName"
    )


async def test_a_claim_that_waits_for_a_node_is_not_blamed_for_a_full_cluster(kube: FakeKube, cluster: Cluster) -> None:
    claim(kube)
    assert (await volumes(kube, cluster, said=FULL)).unbound is None
    assert (await volumes(kube, cluster)).unbound == Unbound(
        "claim tiny-checkpoints is not bound (storageClassName fast-ssd)"
    )


async def test_where_a_bound_volume_lies_is_read_from_its_claim(kube: FakeKube, cluster: Cluster) -> None:
    claim(kube, phase="Bound", node="arcanine")
    assert (await volumes(kube, cluster)).nodes == (("tiny-checkpoints", "arcanine"),)


async def test_a_run_whose_claim_cannot_be_bound_is_stalled() -> None:
    world = World()
    world.settle()
    world.pending_pod(message=UNBOUND)
    world.volumes = Volumes(Unbound("claim tiny-checkpoints is not bound: no", lasting=True))
    world.settle()
    assert condition(world, "Ready") == ("False", "Volume")
    assert condition(world, "Stalled") == ("True", "Volume")


def queued(**labels: str) -> dict[str, Any]:
    run = manifest()
    run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team-a"}
    return run


async def test_a_queue_without_kueue(cluster: Cluster) -> None:
    told = await why_nobody_listens(cluster, World(run=queued()).observe().run)
    assert told == (
        "Kueue is not installed, so nobody will: install it; to train without a queue, delete the run and apply it without the "
        "label kueue.x-k8s.io/queue-name"
    )


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_a_queue_that_does_not_exist_and_one_that_does(version: str, kube: FakeKube, cluster: Cluster) -> None:
    queues = Resource("kueue.x-k8s.io", version, "localqueues", "LocalQueue")
    kube.resources["localqueues"], kube.objects["localqueues"] = queues, {}
    run = World(run=queued()).observe().run
    assert (await why_nobody_listens(cluster, run)).startswith(
        "there is no LocalQueue team-a in namespace lab: create it"
    )
    kube.put("localqueues", {"metadata": {"name": "team-a", "namespace": "lab"}})
    assert await why_nobody_listens(cluster, run) == ""


async def test_a_run_in_such_a_queue_says_so_after_a_second_look() -> None:
    world = World(run=queued())
    world.settle()
    assert world.status().message == "waiting for its queue to admit the Job"
    assert world.reconcile().requeue_after is not None
    world.now += timedelta(seconds=5)
    world.unheard = "Kueue is not installed"
    world.settle()
    assert world.status().message == "waiting for its queue to admit the Job; Kueue is not installed"
    assert condition(world, "Stalled") == ("True", "Queued")
    assert world.reconcile().requeue_after is None, "thousands may stand so; the slow look at all runs corrects it"
    world.unheard = ""
    world.settle()
    assert condition(world, "Stalled") is None
    assert world.reconcile().requeue_after is None, "its release is an event"
