"""A container that a cluster adds to the pods of a run holds neither the step nor its GPU."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller.runs.world import World, manifest, until_training
from trainyard.api.names import ATTEMPT_LABEL, STEP_LABEL
from trainyard.controller.runs.sidecars import GRACE_SECONDS, PATIENCE_SECONDS


def trainer_ends(world: World, *, exit_code: int = 0, **record: Any) -> dict[str, Any]:
    """The trainer's container ends, and the one beside it does not."""
    job = world.live_job()
    assert job is not None
    if f"{job['metadata']['name']}-x" not in world.pods:
        world.start_pod()
    pod = world.pods[f"{job['metadata']['name']}-x"]
    labels = job["metadata"]["labels"]
    said = {"step": labels[STEP_LABEL], "attempt": int(labels[ATTEMPT_LABEL]), "outcome": "Succeeded", **record}
    ended = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "message": json.dumps(said),
        "finishedAt": world.now.isoformat(),
    }
    pod["status"] = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "mesh-proxy", "state": {"running": {}}},
            {"name": "trainer", "state": {"terminated": ended}},
        ],
    }
    return pod


DATA = {"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}}


def test_the_step_ends_with_the_trainer_and_the_pod_is_told_to_go() -> None:
    world = World(run=manifest(evaluation={"enabled": False}))
    world.settle()
    pod = trainer_ends(world, **DATA)
    world.settle()
    assert world.created == ["tiny-prepare-1"], "a pod without such a container would have been gone by then"
    assert "the trainer has ended, and mesh-proxy beside it still runs" in (world.status().message or "")
    again = world.reconcile().requeue_after
    assert again is not None
    assert again <= PATIENCE_SECONDS
    world.pass_time(PATIENCE_SECONDS)
    world.settle()
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]
    assert world.status().dataset is not None
    assert pod["metadata"]["deletionGracePeriodSeconds"] == GRACE_SECONDS
    assert "deletionTimestamp" in world.jobs["tiny-prepare-1"]["metadata"]


def test_the_last_step_ends_the_run_and_frees_the_gpu_within_ten_seconds() -> None:
    world = World(run=manifest(evaluation={"enabled": False}))
    until_training(world)
    pod = trainer_ends(world, stepNumber=10)
    began = world.now
    again = world.reconcile().requeue_after
    while "deletionTimestamp" not in pod["metadata"]:
        world.pass_time(again or 60)
        again = world.reconcile().requeue_after
    freed = world.now + timedelta(seconds=pod["metadata"]["deletionGracePeriodSeconds"])
    assert (freed - began).total_seconds() <= 10
    world.settle()
    assert world.status().state == "Succeeded"


def test_a_failure_beside_such_a_container_is_booked_as_what_it_is() -> None:
    world = World()
    until_training(world)
    trainer_ends(world, exit_code=65, outcome="Failed", reason="InvalidData", message="d: nothing is left")
    world.pass_time(PATIENCE_SECONDS)
    world.settle()
    assert world.status().state == "Failed"
    assert "d: nothing is left" in (world.status().message or "")


def test_a_suspended_run_is_rid_of_it_too() -> None:
    world = World()
    until_training(world)
    world.edit(suspend=True)
    world.settle()
    pod = trainer_ends(world, exit_code=75, outcome="Resume", stepNumber=4)
    pod["metadata"] |= {"deletionTimestamp": world.now.isoformat(), "deletionGracePeriodSeconds": 120}
    world.pass_time(PATIENCE_SECONDS)
    world.settle()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == GRACE_SECONDS
    world.collect()
    world.settle()
    assert world.status().state == "Suspended"
    assert world.status().restarts_count_towards_max in (None, 0)


@pytest.mark.parametrize("dies_after", range(6))
def test_an_operator_that_dies_in_between_loses_nothing(dies_after: int) -> None:
    world = World(run=manifest(evaluation={"enabled": False}))
    world.settle()
    trainer_ends(world, **DATA)
    world.pass_time(PATIENCE_SECONDS)
    world.reconcile(dies_after=dies_after)
    world.settle()
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]
    assert next(s.state for s in world.status().steps or ()) == "Succeeded"


def test_the_first_of_several_pods_to_end_does_not_end_the_others() -> None:
    group: dict[str, Any] = {"storage": {"checkpoints": {"accessModes": ["ReadWriteMany"]}}}
    world = World(run=manifest(numNodes=2, evaluation={"enabled": False}, **group))
    until_training(world)
    trainer_ends(world, stepNumber=10)
    world.pass_time(PATIENCE_SECONDS)
    world.settle()
    assert world.status().state != "Succeeded"
    assert "deletionTimestamp" not in world.jobs["tiny-train-1"]["metadata"]
