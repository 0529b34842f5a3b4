"""Runs that are ended on request, or because there is nothing new to train."""

import pytest

from tests.unit.controller.runs.world import World, condition, until_training
from trainyard.controller.runs.announce import notices


def annotated(**annotations: str) -> World:
    world = World()
    world.run["metadata"]["annotations"] = {f"trainyard.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}
    return world


def test_a_cancelled_run_saves_its_state_and_ends_for_good() -> None:
    world = World()
    until_training(world)
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "replaced by a newer one"}
    world.reconcile()
    assert "deletionTimestamp" in world.jobs["tiny-train-1"]["metadata"]
    assert world.status().message == "cancelling: waiting for the pod to save its state and stop"
    world.collect()
    before = world.status()
    world.settle()
    status = world.status()
    assert (status.state, condition(world, "Failed"), condition(world, "Ready")) == (
        "Cancelled",
        ("True", "Cancelled"),
        ("False", "Cancelled"),
    )
    assert status.message == "cancelled: replaced by a newer one"
    assert status.completion_time is not None
    assert [(n.type, n.reason.value) for n in notices(before, status)][-1] == ("Normal", "Cancelled")
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]


def test_a_run_that_is_cancelled_before_its_first_look_makes_nothing() -> None:
    world = annotated(cancel="")
    world.settle()
    assert (world.created, world.status().state) == ([], "Cancelled")
    assert "no reason" in (world.status().message or "")


def test_a_suspended_run_can_be_cancelled() -> None:
    world = World()
    world.edit(suspend=True)
    world.settle()
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "x"}
    world.settle()
    assert world.status().state == "Cancelled"


def test_a_finished_run_stays_what_it_is() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=65)
    world.settle()
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "x"}
    world.settle()
    assert world.status().state == "Failed"


@pytest.mark.parametrize(("known", "jobs"), [("sha256:1", 1), ("sha256:2", 2)])
def test_data_that_were_trained_on_already_end_the_run_before_the_training(known: str, jobs: int) -> None:
    world = annotated(skip_if_dataset=known)
    world.settle()
    world.end(record={"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}})
    world.settle()
    assert len(world.created) == jobs
    if jobs == 1:
        assert (world.status().state, condition(world, "Failed")) == ("Cancelled", ("True", "Unchanged"))
