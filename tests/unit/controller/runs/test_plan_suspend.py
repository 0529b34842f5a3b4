"""What the planner does about a run that is suspended, and resumed."""

import json

import pytest

from tests.unit.controller.runs.world import World, condition, manifest, progress, until_training


def suspended_in_training(*, saved: int | None = None) -> World:
    """A run whose pod has been asked to stop and has not done so yet."""
    world = World()
    until_training(world)
    world.progress = None if saved is None else progress(world, step=saved + 1, checkpoint=saved)
    world.edit(suspend=True)
    world.settle()
    return world


def test_suspend_waits_for_the_pod_and_resume_goes_on() -> None:
    world = suspended_in_training(saved=3)
    assert world.status().state == "Pending"
    assert condition(world, "Suspended") is None
    world.collect()
    world.pass_time(100)
    world.settle()
    assert world.status().state == "Suspended"
    assert "step 3" in (world.status().message or "")
    assert condition(world, "Suspended") == ("True", "Suspended")
    world.edit(suspend=False)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert condition(world, "Suspended") == ("False", "Resumed")
    assert world.status().restarts_count_towards_max == 0


def test_a_run_is_not_suspended_before_its_pod_is_gone_even_if_the_job_went_first() -> None:
    world = suspended_in_training()
    del world.jobs["tiny-train-1"]
    world.settle()
    assert condition(world, "Suspended") is None
    world.collect()
    del world.pods["tiny-train-1-x"]
    world.settle()
    assert condition(world, "Suspended") == ("True", "Suspended")


def test_a_run_is_not_suspended_while_the_kubelet_still_cleans_up_its_pod() -> None:
    """The container has ended, and the Job has failed by that; both objects are still there."""
    world = suspended_in_training()
    world.pods["tiny-train-1-x"]["metadata"]["deletionTimestamp"] = world.now.isoformat()
    world.end(exit_code=75)
    world.settle()
    assert condition(world, "Suspended") is None
    assert world.status().message == "suspending: waiting for the pod to be gone"
    world.collect()
    world.settle()
    assert condition(world, "Suspended") == ("True", "Suspended")


@pytest.mark.parametrize("exit_code", [75, 143, 137, 1])
def test_a_pod_that_was_told_to_stop_has_not_failed_even_if_its_job_did(exit_code: int) -> None:
    """The Job controller may notice the end of the pod before the garbage collector has removed the Job."""
    world = suspended_in_training(saved=3)
    world.end(exit_code=exit_code, record={"outcome": "Resume", "stepNumber": 7} if exit_code == 75 else None)
    world.settle()
    world.collect()
    world.settle()
    assert condition(world, "Suspended") == ("True", "Suspended")
    attempt = (world.status().steps or [])[1].attempts[-1]  # type: ignore[index]
    reached = 7 if exit_code == 75 else 4
    assert (attempt.state, attempt.reason, attempt.counted, attempt.last_step) == (
        "Stopped",
        "Suspended",
        False,
        reached,
    )
    world.edit(suspend=False)
    world.settle()
    assert world.created[-1] == "tiny-train-2"


def test_where_a_suspended_pod_stopped_is_read_before_it_is_gone() -> None:
    """Its last report may have been lost; its final record is there for a moment."""
    world = suspended_in_training(saved=3)
    pod = world.pods["tiny-train-1-x"]
    record = {
        "step": "train",
        "attempt": 1,
        "outcome": "Resume",
        "stepNumber": 7,
        "checkpoint": {"step": 7, "path": "c/7"},
    }
    ended = {"exitCode": 75, "reason": "Error", "message": json.dumps(record), "finishedAt": world.now.isoformat()}
    pod["status"] = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}]}
    world.settle()
    assert world.status().state == "Pending"
    world.collect()
    world.settle()
    assert world.status().state == "Suspended"
    assert "step 7" in (world.status().message or "")
    attempt = (world.status().steps or [])[1].attempts[-1]  # type: ignore[index]
    assert (attempt.state, attempt.reason, attempt.counted, attempt.last_step) == ("Stopped", "Suspended", False, 7)


def test_suspended_from_the_start_makes_nothing() -> None:
    world = World(run=manifest(suspend=True))
    world.settle()
    assert (world.created, world.status().state, world.status().start_time) == ([], "Suspended", None)


def test_the_deadline_leaves_suspended_time_out() -> None:
    world = World(run=manifest(activeDeadlineSeconds=100))
    until_training(world)
    world.pass_time(60)
    world.edit(suspend=True)
    world.settle()
    world.collect()
    world.settle()
    world.pass_time(1000)
    world.edit(suspend=False)
    world.settle()
    assert world.status().state == "Pending"
    world.start_pod()
    world.pass_time(39)
    world.settle()
    assert world.status().state == "Training"
    world.pass_time(1)
    world.settle()
    assert world.status().state == "Failed"
    assert condition(world, "Failed") == ("True", "DeadlineExceeded")
    assert all(
        "deletionTimestamp" in j["metadata"] for j in world.jobs.values() if j["metadata"]["name"].endswith("train-2")
    )


def test_an_edit_while_suspended_reaches_the_next_attempt() -> None:
    world = suspended_in_training()
    world.collect()
    world.settle()
    world.edit(training={"method": "Pretrain", "maxSteps": 10, "perDeviceTrainBatchSize": 2}, suspend=False)
    world.settle()
    assert '"perDeviceTrainBatchSize":2' in world.secrets["tiny-trainyard"]["stringData"]["run.json"]
