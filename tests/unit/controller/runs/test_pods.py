"""Several pods of one training: together or not at all, and one of them speaks."""

import json
from typing import Any

import pytest

from tests.unit.controller.runs.world import World, manifest

RWX = {"checkpoints": {"accessModes": ["ReadWriteMany"]}}


def training(**spec: Any) -> World:
    """A run of two pods whose data are prepared."""
    world = World(run=manifest(**{"numNodes": 2, "storage": RWX, **spec}))
    world.settle()
    world.end(record={})
    world.settle()
    return world


def job(world: World) -> dict[str, Any]:
    live = world.live_job()
    assert live is not None
    return live


def pod(world: World, index: int, *, node: str = "forge", **status: Any) -> None:
    """One of the two, running unless its status says otherwise."""
    raw = job(world)
    name = f"{raw['metadata']['name']}-{index}"
    labels = {"batch.kubernetes.io/job-name": raw["metadata"]["name"], **raw["metadata"]["labels"]}
    running = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}
    world.pods[name] = {
        "metadata": {
            "name": name,
            "uid": f"pod-{name}",
            "creationTimestamp": world.now.isoformat(),
            "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"nodeName": node} if node else {},
        "status": status or running,
    }


def ended(code: int, *, reason: str = "", message: str = "") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "message": message}
    return {
        "phase": "Succeeded" if code == 0 else "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": state}}],
    }


def record(**fields: Any) -> str:
    return json.dumps({"step": "train", "attempt": 1, "outcome": "Succeeded"} | fields)


def job_failed(world: World) -> None:
    job(world)["status"] = {
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "lastTransitionTime": world.now.isoformat(),
                "message": "",
                "reason": "",
            }
        ]
    }


WAITING = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available: 2 Insufficient cpu"}
    ],
}


def test_the_training_is_an_indexed_job_with_names_for_its_pods() -> None:
    world = training()
    spec = job(world)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["template"]["spec"]["subdomain"] == "tiny-pods"
    env = {e["name"]: e["value"] for e in spec["template"]["spec"]["containers"][0]["env"]}
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("tiny-train-1-0.tiny-pods", "29500")
    assert (env["TRAINYARD_NUM_NODES"], env["TRAINYARD_NUM_PROC_PER_NODE"]) == ("2", "1")
    service = world.services["tiny-pods"]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    prepare = world.jobs["tiny-prepare-1"]["spec"]
    assert "completionMode" not in prepare
    assert "subdomain" not in prepare["template"]["spec"]


def test_one_pod_with_several_processes_is_an_ordinary_job() -> None:
    world = training(numNodes=1, numProcPerNode=2)
    spec = job(world)["spec"]
    assert "completionMode" not in spec
    env = {e["name"]: e["value"] for e in spec["template"]["spec"]["containers"][0]["env"]}
    assert env["TRAINYARD_NUM_PROC_PER_NODE"] == "2"
    assert "MASTER_ADDR" not in env
    assert world.services == {}


def test_a_script_gets_the_same_in_the_words_of_torchrun() -> None:
    script = {"image": "own:1", "command": ["torchrun", "train.py"], "model": None, "datasets": None, "training": None}
    world = World(run=manifest(**{"numNodes": 2, "storage": RWX, **script}))
    world.settle()
    env = {e["name"]: e.get("value") for e in job(world)["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"], env["PET_MASTER_ADDR"]) == (
        "2",
        "1",
        "tiny-train-1-0.tiny-pods",
    )


def test_a_group_that_is_not_complete_says_what_it_waits_for() -> None:
    world = training()
    pod(world, 0)
    world.settle()
    assert world.status().state == "Pending"
    assert "1 of 2 pods hold their nodes and wait for it" in (world.status().message or "")
    pod(world, 1, node="", **WAITING)
    world.settle()
    assert (
        "waiting for a node: 0/2 nodes are available: 2 Insufficient cpu (pod 1 of 2, 1 of 2 pods hold their nodes"
        in (world.status().message or "")
    )
    pod(world, 1, node="arcanine")
    world.settle()
    assert (world.status().state, world.status().message) == ("Training", "training on forge, arcanine")


def test_it_succeeds_when_all_have_and_the_first_tells_what_was_reached() -> None:
    world = training()
    pod(world, 0, **ended(0, message=record(stepNumber=10, checkpoint={"step": 10, "path": "c/10"})))
    pod(world, 1)
    world.settle()
    assert world.status().current_step == "train"
    pod(world, 1, **ended(0, message=record(stepNumber=0)))
    world.settle()
    status = world.status()
    assert status.current_step == "evaluate"
    assert status.checkpoint is not None
    assert status.checkpoint.step == 10


@pytest.mark.parametrize(
    ("first", "second", "reason", "counted"),
    [
        (ended(75), ended(137), "Killed", True),
        (ended(137), ended(75), "Killed", True),
        (ended(75), ended(75), "Interrupted", False),
        (ended(75), ended(64, message=record(outcome="Failed", message="no such field")), "InvalidConfig", True),
        (ended(1), ended(137, reason="OOMKilled"), "HostOutOfMemory", True),
        (ended(75), {"phase": "Failed", "reason": "Evicted", "message": "node drain"}, "Disrupted", False),
        (ended(75), ended(1, message=record(outcome="Failed", message="division by zero")), "Error", True),
    ],
)
def test_the_one_that_failed_first_tells_why(first: Any, second: Any, reason: str, counted: bool) -> None:
    world = training()
    pod(world, 0, **first)
    pod(world, 1, **second)
    job_failed(world)
    world.settle()
    attempt, *_ = next(s for s in world.status().steps or () if s.name == "train").attempts or ()
    assert (attempt.reason, attempt.counted) == (reason, counted)


def test_the_next_attempt_is_made_for_the_whole_group() -> None:
    world = training()
    pod(world, 0, **ended(75))
    pod(world, 1, **ended(137))
    job_failed(world)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert job(world)["spec"]["completions"] == 2
    env = {e["name"]: e.get("value") for e in job(world)["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MASTER_ADDR"] == "tiny-train-2-0.tiny-pods"
