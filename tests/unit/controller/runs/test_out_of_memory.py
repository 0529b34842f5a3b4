"""A trainer that finds a way to fit into its device: what the operator shows of it, and when it runs it again."""

from typing import Any

from tests.unit.controller.runs.world import World, progress, until_training
from trainyard.controller.runs.announce import notices

ONE = "batch 2 x 4 instead of 4 x 2, from step 0 on"
TWO = "batch 1 x 8 instead of 2 x 4, from step 7 on"


def reported(world: World, **effective: Any) -> list[tuple[str, str]]:
    """Let a record in; the Events that it makes."""
    before = world.status()
    world.progress = progress(world, step=8).model_copy(update={"effective": effective})
    world.settle()
    return [(notice.reason.value, notice.message) for notice in notices(before, world.status())]


def test_each_reduction_is_one_event_and_the_status_shows_what_holds() -> None:
    world = World()
    until_training(world)
    assert reported(world, perDeviceTrainBatchSize=4) == []
    told = reported(world, perDeviceTrainBatchSize=2, outOfMemoryReductions=ONE)
    assert told == [("OutOfMemoryReduced", f"the device ran out of memory: {ONE}")]
    assert (world.status().effective or {})["perDeviceTrainBatchSize"] == "2"
    assert reported(world, perDeviceTrainBatchSize=2, outOfMemoryReductions=ONE) == []
    told = reported(world, perDeviceTrainBatchSize=1, outOfMemoryReductions=f"{ONE}; {TWO}")
    assert told == [("OutOfMemoryReduced", f"the device ran out of memory: {TWO}")]


def test_a_trainer_that_will_ask_for_less_is_run_again_at_once_and_not_counted() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=79, record={"outcome": "Resume", "message": "too large for the group"})
    world.settle()
    attempts = (world.status().steps or [])[1].attempts or []
    assert (attempts[0].reason, attempts[0].counted) == ("OutOfMemoryReduced", False)
    assert (attempts[1].number, attempts[1].state) == (2, "Running")
    assert world.status().restarts_count_towards_max == 0


def test_the_end_of_the_ladder_is_final() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=79, record={"outcome": "Failed", "message": "even with batch 1"})
    world.settle()
    failure = world.status().failure
    assert failure is not None
    assert (world.status().state, failure.reason, failure.message) == (
        "Failed",
        "DeviceOutOfMemory",
        "even with batch 1",
    )
