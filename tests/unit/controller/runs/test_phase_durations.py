"""How long a phase may take, and how long it is expected to."""

from typing import Any

from tests.unit.controller.runs.world import World, condition, manifest, progress

RATE = {"hourlyRate": 3.6, "currency": "EUR"}


def in_phase(first: dict[str, Any], second: dict[str, Any], **spec: Any) -> World:
    """A run that trains its first phase."""
    phases = [{"name": "one", **first}, {"name": "two", "training": {"method": "CPT"}, **second}]
    world = World(run=manifest(phases=phases, resources={"limits": {"nvidia.com/gpu": 1}}, backoffLimit=100, **spec))
    world.settle()
    world.end(record={})
    world.settle()
    world.start_pod()
    world.settle()
    return world


def again(world: World, seconds: int) -> None:
    """An attempt of so many seconds is interrupted, and the next one begins after a while."""
    world.pass_time(seconds)
    world.end(exit_code=75)
    world.settle()
    world.pass_time(1000)
    world.settle()
    if world.live_job() is not None:
        world.start_pod()
        world.settle()


def test_the_deadline_of_a_phase_counts_what_its_pods_have_trained_over_all_attempts() -> None:
    world = in_phase({"activeDeadlineSeconds": 1200}, {})
    for _ in range(11):
        again(world, 100)
    assert world.status().state == "Training", "waiting does not count"
    assert (world.decide().requeue_after or 0) <= 100
    world.pass_time(100)
    world.settle()
    assert condition(world, "Failed") == ("True", "DeadlineExceeded")
    assert (world.status().message or "").startswith(
        "spec.phases[one].activeDeadlineSeconds of 1200 was reached during train-one; checkpoints are kept"
    )


def test_the_deadline_of_another_phase_is_none_of_this_one() -> None:
    world = in_phase({}, {"activeDeadlineSeconds": 50})
    world.pass_time(1000)
    world.settle()
    assert world.status().state == "Training"
    world.end(record={})
    world.settle()
    world.start_pod()
    world.pass_time(50)
    world.settle()
    assert condition(world, "Failed") == ("True", "DeadlineExceeded")


def test_a_phase_that_takes_longer_than_expected_says_so_and_goes_on() -> None:
    world = in_phase({"expectedDurationSeconds": 600}, {})
    world.pass_time(600)
    world.settle()
    assert world.status().message == "training phase one on forge"
    world.pass_time(1)
    world.settle()
    assert world.status().message == "training phase one on forge; it takes longer than the expected 10m0s"


def test_progress_and_cost_of_the_whole_go_by_what_is_expected() -> None:
    world = in_phase({"expectedDurationSeconds": 3000}, {"expectedDurationSeconds": 1000}, cost=RATE)
    status = world.run["status"]
    assert status["cost"]["estimated"] == "4", "4000 s at a thousandth a second"
    world.progress = progress(world, step=5).model_copy(update={"step": "train-one"})
    world.pass_time(100)
    world.settle()
    status = world.run["status"]
    assert status["trainerStatus"]["progressPercentage"] == 37, "half of three quarters"
    assert status["cost"]["estimated"] == "1.3", "100 s are over, 200 are told, 1000 are expected"


def test_a_run_that_waits_for_approval_tells_what_its_phases_expect() -> None:
    phases = [{"name": "one", "expectedDurationSeconds": 1000}]
    gpu = {"limits": {"nvidia.com/gpu": 1}}
    world = World(run=manifest(phases=phases, resources=gpu, cost={**RATE, "requireApproval": True}))
    world.settle()
    assert "about 1 EUR as spec.phases expect" in (world.status().message or "")
