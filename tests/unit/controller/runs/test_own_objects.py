"""A run changes and deletes what it has made, and nothing else; and it knows its own, whatever people do to it."""

from typing import Any

import pytest

from tests.unit.controller.runs.world import World, condition, manifest, until_training
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.runs.announce import notices

RWX = {"checkpoints": {"accessModes": ["ReadWriteMany"]}}
GROUP: dict[str, Any] = {"numNodes": 2, "storage": RWX, "evaluation": {"enabled": False}}


def foreign(name: str, **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"theirs-{name}", "annotations": {}}, **rest}


@pytest.mark.parametrize(
    ("kind", "store", "name"), [("Secret", "secrets", "tiny-trainyard"), ("Service", "services", "tiny-pods")]
)
def test_what_somebody_else_has_under_the_name_is_told_and_left_alone(kind: str, store: str, name: str) -> None:
    world = World(run=manifest(**GROUP, ttlSecondsAfterFinished=50))
    theirs = getattr(world, store)[name] = foreign(name)
    world.settle()
    if world.live_job():  # preparing needs no Service
        world.end(record={})
        world.settle()
    assert condition(world, "Ready") == ("False", "NameConflict")
    assert world.status().message == f"{kind} {name} exists and does not belong to this run; delete or rename it"
    assert "tiny-train-1" not in world.created
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "x"}
    world.settle()
    world.pass_time(50)
    world.settle()
    assert world.status().cleaned_up is True
    assert getattr(world, store) == {name: theirs}


def test_what_the_run_has_made_goes_with_its_ttl_and_no_later_one_of_the_same_name() -> None:
    world = World(run=manifest(**GROUP, ttlSecondsAfterFinished=50))
    world.settle()
    world.end(record={})
    world.settle()
    assert (list(world.secrets), list(world.services)) == (["tiny-trainyard"], ["tiny-pods"])
    world.services["tiny-pods"] = foreign("tiny-pods")
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "x"}
    world.settle()
    world.collect()
    world.settle()
    world.pass_time(50)
    world.settle()
    assert (world.secrets, list(world.services)) == ({}, ["tiny-pods"])


def test_a_service_that_is_there_already_is_not_made_again() -> None:
    world = World(run=manifest(**GROUP))
    world.settle()
    world.end(record={})
    world.settle()
    made = world.services["tiny-pods"]
    world.remove_job("tiny-train-1")
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert world.services["tiny-pods"] is made


def test_a_run_that_a_queue_lets_go_does_not_take_over_a_secret_either() -> None:
    world = World(run=manifest())
    world.run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    world.settle()
    theirs = world.secrets["tiny-trainyard"] = foreign("tiny-trainyard", stringData={"theirs": "yes"})
    world.jobs["tiny-prepare-1"]["spec"]["suspend"] = False
    world.settle()
    assert condition(world, "Ready") == ("False", "NameConflict")
    assert world.secrets["tiny-trainyard"] == theirs


# Jobs that people have edited


def test_a_job_whose_labels_were_edited_is_still_the_attempt_that_it_was_made_for() -> None:
    world = World()
    until_training(world)
    world.jobs["tiny-train-1"]["metadata"]["labels"] = {"trainyard.dev/step": "evaluate", "trainyard.dev/attempt": "7"}
    world.settle()
    assert world.status().state == "Training"
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]


def test_a_job_without_its_owner_is_named_and_goes_on_and_obeys() -> None:
    world = World()
    until_training(world)
    del world.jobs["tiny-train-1"]["metadata"]["ownerReferences"]
    world.settle()
    assert world.status().state == "Training"
    assert world.status().message == (
        "training on forge; Job tiny-train-1 has lost its owner reference and will stay when the run is deleted"
    )
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]
    world.edit(suspend=True)
    world.settle()
    assert "deletionTimestamp" in world.jobs["tiny-train-1"]["metadata"]


def test_a_copy_of_a_job_under_another_name_is_no_attempt() -> None:
    """As `kubectl get job -o yaml`, a new name and `kubectl apply` make it."""
    world = World()
    until_training(world)
    copy = dict(world.jobs["tiny-train-1"])
    copy["metadata"] = {k: v for k, v in copy["metadata"].items() if k != "ownerReferences"} | {
        "name": "my-own",
        "uid": "x",
    }
    world.jobs["my-own"] = copy
    copy["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": world.now.isoformat()}]}
    world.settle()
    assert world.status().state == "Training"


def test_a_job_that_somebody_has_suspended_waits_for_no_queue() -> None:
    world = World()
    until_training(world)
    world.jobs["tiny-train-1"]["spec"]["suspend"] = True
    world.pods.clear()
    world.settle()
    assert condition(world, "Ready") == ("False", "Pending")
    message = world.status().message or ""
    assert message.startswith("Job tiny-train-1 has been suspended, and not by this operator; it goes on when its own")
    assert "queue" not in message
    world.jobs["tiny-train-1"]["spec"]["suspend"] = False
    world.start_pod()
    world.settle()
    assert world.status().state == "Training"


def test_a_pod_that_ended_well_on_its_way_out_of_a_suspended_job_is_not_the_end_of_its_step() -> None:
    """The Job makes another one when it goes on, and that one must not work beside the next step."""
    world = World()
    world.settle()
    world.end(record={"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}})
    job, pod = world.jobs["tiny-prepare-1"], world.pods["tiny-prepare-1-x"]
    complete, job["status"] = job["status"], {}
    job["spec"]["suspend"] = True
    pod["metadata"]["deletionTimestamp"] = world.now.isoformat()
    world.settle()
    job["spec"]["suspend"] = False
    world.settle()
    assert list(world.jobs) == ["tiny-prepare-1"]
    world.pods.clear()
    world.start_pod()
    world.settle()
    assert list(world.jobs) == ["tiny-prepare-1"]
    world.end(record={"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}})
    assert job["status"] == complete
    world.settle()
    assert list(world.jobs) == ["tiny-prepare-1", "tiny-train-1"]


# Claims that people have deleted


def deleted_under_training() -> tuple[World, TrainingRunStatus]:
    world = World(run=manifest(evaluation={"enabled": False}))
    until_training(world)
    before = world.status()
    world.claims["tiny-checkpoints"]["metadata"]["deletionTimestamp"] = world.now.isoformat()
    world.settle()
    return world, before


def test_a_claim_that_is_deleted_under_a_run_is_told_at_once_and_in_an_event() -> None:
    world, before = deleted_under_training()
    status = world.status()
    assert (status.state, condition(world, "Ready")) == ("Training", ("False", "MissingClaim"))
    assert status.message == (
        "training on forge; PersistentVolumeClaim tiny-checkpoints is being deleted and goes with the run's last pod: "
        "copy what is to be kept"
    )
    told = [(n.type, n.reason.value) for n in notices(before, status)]
    assert told == [("Warning", "MissingClaim")]


def test_a_run_that_succeeds_on_such_a_claim_says_that_its_result_goes() -> None:
    world, _ = deleted_under_training()
    world.end(record={})
    world.settle()
    assert world.status().state == "Succeeded"
    assert "tiny-checkpoints is being deleted, and the result goes with it" in (world.status().message or "")


def test_no_attempt_begins_on_a_claim_that_is_being_deleted() -> None:
    world, _ = deleted_under_training()
    world.end(exit_code=75)
    world.settle()
    assert world.created[-1] == "tiny-train-1"
    assert condition(world, "Stalled") == ("True", "MissingClaim")
    assert "is being deleted" in (world.status().message or "")


def test_a_claim_of_others_that_is_deleted_is_no_news() -> None:
    world = World()
    until_training(world)
    world.claims["theirs"] = {"metadata": {"name": "theirs", "deletionTimestamp": world.now.isoformat()}}
    world.settle()
    assert condition(world, "Ready") == ("False", "Training")
