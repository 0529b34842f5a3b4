"""A node stops reporting under a run whose volume lies on that node. The run says so, waits, and goes on.

Only the kubelet is stopped, which is what a cluster sees of a broken network: the container itself goes on. The test
stays below the five minutes after which Kubernetes evicts the pods of a lost node; the second one is about what
happens then.
"""

import time

import pytest

from tests.e2e import measure, runs
from tests.e2e.faults import node_lost
from tests.e2e.kube import Kube
from tests.e2e.recording import Recording
from tests.e2e.scripted import counting, steps_done
from trainyard.controller.kube.resources import JOBS, PODS

NODE = "arcanine"


@pytest.mark.timeout(600)
def test_a_run_survives_the_loss_of_its_node(kube: Kube, space: str) -> None:
    placed = {
        "placement": {"nodeNames": [NODE]},
        "resources": {"requests": {"cpu": "10m"}, "limits": {"nvidia.com/gpu": 1}},
    }
    with Recording(kube, JOBS, space) as jobs:
        runs.apply(kube, space, counting("far-away", steps=160, pause=0.5, save=10, **placed))
        run = runs.until(kube, space, "far-away", lambda r: runs.step_number(r) > 0, seconds=90, what="its first steps")
        assert runs.attempts(run)[0]["node"] == NODE
        lost = time.monotonic()
        with node_lost(NODE):
            run = runs.until(
                kube, space, "far-away", lambda r: "stopped reporting" in runs.message(r), seconds=150, what="the loss"
            )
            shown = time.monotonic() - lost
            ready = runs.condition(run, "Ready")
            assert ready is not None
            assert ready["reason"] == "NodeLost"
            assert NODE in runs.message(run)
            assert not runs.has(run, "Stalled"), "it goes on by itself"
        back = time.monotonic()
        run = runs.until_succeeded(kube, space, "far-away", seconds=200)
        assert jobs.created() == ["far-away-train-1"], "the pod was there all the time; a second one would train twice"
    assert run["status"]["restarts"] == 0
    assert set(steps_done(kube, run).values()) == {1}
    measure.record("node-lost", message_after=round(shown, 1), succeeded_after_return=round(time.monotonic() - back, 1))


@pytest.mark.load
@pytest.mark.timeout(900)
def test_a_run_that_was_evicted_from_a_lost_node_goes_on_there(kube: Kube, space: str) -> None:
    """What happens after five minutes, made to happen after five seconds by tolerations of the run's own."""
    impatient = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
        for taint in ("unreachable", "not-ready")
    ]
    placed = {"placement": {"nodeNames": [NODE], "tolerations": impatient}}
    steps, save = 300, 10
    with Recording(kube, JOBS, space) as jobs:
        runs.apply(kube, space, counting("evicted", steps=steps, pause=0.5, save=save, **placed))
        runs.until(kube, space, "evicted", lambda r: runs.step_number(r) > 0, seconds=90, what="its first steps")
        pod = runs.pods(kube, space, "evicted")[0]["metadata"]["name"]
        with node_lost(NODE):
            kube.wait(
                PODS,
                space,
                pod,
                lambda p: bool(p and "deletionTimestamp" in p["metadata"]),
                seconds=200,
                what="the eviction",
            )
            run = runs.until(
                kube, space, "evicted", lambda r: "stopped reporting" in runs.message(r), seconds=60, what="the loss"
            )
            assert jobs.created() == ["evicted-train-1"], "nobody knows whether the first pod still writes"
        run = runs.until_succeeded(kube, space, "evicted", seconds=400)
        assert jobs.created() == ["evicted-train-1", "evicted-train-2"]
    first, _ = runs.attempts(run)
    assert (first["reason"], first["counted"]) in (("Disrupted", False), ("Interrupted", False))
    done = steps_done(kube, run)
    assert sorted(done) == list(range(1, steps + 1))
    assert sum(done.values()) - steps <= save, "more was done twice than lay between two checkpoints"
    measure.record("node-lost-evicted", reason=first["reason"], steps_done_twice=sum(done.values()) - steps)
