"""What the cluster denies is told in its own words and goes on by itself; nothing of ours keeps an object from going."""

import pytest

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.test_edited_by_hand import Desk
from trainyard.controller.kube.cluster import Cluster


@pytest.fixture
def desk(kube: FakeKube, cluster: Cluster) -> Desk:
    return Desk(kube, cluster)


async def test_a_job_that_a_policy_denies_stalls_the_run_until_it_is_allowed(desk: Desk) -> None:
    desk.kube.refuses = lambda plural, body: plural == "jobs"
    await desk.started()
    assert {c["type"]: c["status"] for c in desk.status["conditions"]}["Stalled"] == "True"
    assert desk.status["message"].startswith("the API server refuses jobs tiny-prepare-1: ")
    desk.kube.refuses = lambda plural, body: False
    await desk.look(2)
    assert desk.jobs() == ["tiny-prepare-1"]
    assert "Stalled" not in {c["type"] for c in desk.status["conditions"]}


async def test_a_run_and_its_children_go_without_an_operator(desk: Desk) -> None:
    await desk.started()
    children = [
        o
        for kind in ("trainingruns", "jobs", "secrets", "persistentvolumeclaims")
        for o in desk.kube.objects[kind].values()
    ]
    assert len(children) == 4
    assert not [o for o in children if o["metadata"].get("finalizers")]
