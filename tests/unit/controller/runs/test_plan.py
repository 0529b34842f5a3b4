"""The planner's decisions, one situation at a time. Suspension, retries and progress have files of their own."""

from tests.unit.controller.runs.world import World, condition, manifest, until_training


def test_a_run_goes_through_its_steps_and_succeeds() -> None:
    world = World()
    world.settle()
    assert world.created == ["tiny-prepare-1"]
    assert world.status().observed_generation == 1
    assert condition(world, "Ready") == ("False", "Pending")
    until_training(world)
    assert world.status().state == "Training"
    assert world.status().dataset is not None
    world.end(record={"checkpoint": {"step": 10, "path": "c/10"}, "stepNumber": 10, "totalSteps": 10})
    world.settle()
    world.end(record={"evaluation": {"metrics": {"loss": 2.5, "perplexity": 12.2}}})
    world.settle()
    status = world.status()
    assert world.created == ["tiny-prepare-1", "tiny-train-1", "tiny-evaluate-1"]
    assert (status.state, condition(world, "Ready"), condition(world, "Complete")) == (
        "Succeeded",
        ("True", "Succeeded"),
        ("True", "Succeeded"),
    )
    assert condition(world, "Reconciling") is None
    assert status.summary is not None
    assert status.summary.progress == "100%"
    assert status.summary.step == "10/10"


def test_the_next_step_does_not_wait_for_the_job_controller() -> None:
    world = World()
    world.settle()
    world.end(record={})
    world.jobs["tiny-prepare-1"]["status"] = {"active": 1}
    world.reconcile()
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]


def test_four_writes_until_the_first_job_exists() -> None:
    world = World()
    world.reconcile()
    assert world.writes == 4
    assert world.created == ["tiny-prepare-1"]


def test_terminal_is_terminal_whatever_happens_to_the_jobs() -> None:
    world = World(run=manifest(evaluation={"enabled": False}))
    until_training(world)
    world.end(record={})
    world.settle()
    for name in list(world.jobs):
        world.remove_job(name)
    world.secrets.clear()
    world.edit(backoffLimit=7)
    world.settle()
    assert world.jobs == {}
    assert world.status().state == "Succeeded"
    assert world.status().observed_generation == 2


def test_ttl_deletes_children_but_neither_run_nor_volume() -> None:
    world = World(run=manifest(ttlSecondsAfterFinished=50, evaluation={"enabled": False}))
    until_training(world)
    world.end(record={})
    world.settle()
    assert world.decide().requeue_after == 50
    world.pass_time(50)
    world.settle()
    world.collect()
    world.settle()
    assert (world.jobs, world.secrets) == ({}, {})
    assert list(world.claims) == ["tiny-checkpoints"]
    assert world.decide().actions == ()
    assert world.status().cleaned_up is True


def test_an_unschedulable_pod_is_explained_and_hopeless_only_when_no_node_is_large_enough() -> None:
    world = World(run=manifest(resources={"limits": {"nvidia.com/gpu": 64}}))
    world.settle()
    world.end(record={})
    world.settle()
    world.pending_pod(message="0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    world.settle()
    assert condition(world, "Ready") == ("False", "Unschedulable")
    assert condition(world, "Stalled") is None
    world.impossible = ("spec.resources asks for nvidia.com/gpu: 64, the largest node has 1",)
    world.settle()
    assert condition(world, "Stalled") == ("True", "Unschedulable")
    assert "the largest node has 1" in (world.status().message or "")


def test_a_missing_claim_stalls_until_it_exists() -> None:
    world = World(run=manifest(storage={"checkpoints": {"claimName": "big-disk"}}))
    world.settle()
    assert condition(world, "Stalled") == ("True", "MissingClaim")
    assert "big-disk" in (world.status().message or "")
    assert world.created == []
    world.claims["big-disk"] = {"metadata": {"name": "big-disk"}}
    world.settle()
    assert world.created == ["tiny-prepare-1"]
    assert condition(world, "Stalled") is None
    assert "ownerReferences" not in world.claims["big-disk"]["metadata"]


def test_lost_checkpoints_are_never_replaced_by_an_empty_volume() -> None:
    world = World()
    until_training(world)
    world.claims.clear()
    world.end(exit_code=75)
    world.settle()
    assert condition(world, "Stalled") == ("True", "MissingClaim")
    assert world.claims == {}


def test_retain_can_change_at_any_time() -> None:
    world = World()
    until_training(world)
    assert world.claims["tiny-checkpoints"]["metadata"]["ownerReferences"]
    world.edit(storage={"checkpoints": {"retain": True}})
    world.settle()
    assert world.claims["tiny-checkpoints"]["metadata"]["ownerReferences"] == []
    world.edit(storage={"checkpoints": {"retain": False}})
    world.settle()
    assert world.claims["tiny-checkpoints"]["metadata"]["ownerReferences"][0]["uid"] == world.run["metadata"]["uid"]


def test_dry_run_has_one_step() -> None:
    world = World(run=manifest(mode="DryRun"))
    world.settle()
    assert world.created == ["tiny-validate-1"]
    world.end(record={})
    world.settle()
    assert world.status().state == "Succeeded"
    assert world.status().outputs is None


def test_a_queued_run_is_written_once_and_left_alone() -> None:
    run = manifest()
    run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
    world = World(run=run)
    world.reconcile()
    assert world.jobs["tiny-prepare-1"]["spec"]["suspend"] is True
    writes = world.writes
    world.pass_time(100_000)
    assert world.reconcile().requeue_after is None
    assert world.writes == writes
    assert condition(world, "Ready") == ("False", "Queued")
