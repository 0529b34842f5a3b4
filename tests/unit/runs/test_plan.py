"""The planner's decisions, one situation at a time."""

import json
from typing import Any

import pytest
from world import World, manifest

from trainyard.api.progress import CheckpointRecord, ProgressRecord


def condition(world: World, kind: str) -> tuple[str, str] | None:
    found = next((c for c in world.status().conditions or () if c.type == kind), None)
    return (found.status, found.reason) if found else None


def progress(world: World, *, step: int, attempt: int = 1, checkpoint: int | None = None) -> ProgressRecord:
    return ProgressRecord(
        run_uid=world.run["metadata"]["uid"],
        step="train",
        attempt=attempt,
        sequence=step,
        time="2026-01-01T00:00:00Z",
        phase="train",
        step_number=step,
        total_steps=10,
        percentage=step * 10,
        estimated_remaining_seconds=200.0,
        metrics={"loss": 1.25},
        checkpoint=None if checkpoint is None else CheckpointRecord(step=checkpoint, path=f"c/{checkpoint}"),
    )


def until_training(world: World) -> None:
    world.settle()
    world.end(record={"dataset": {"digest": "sha256:1", "records": 3, "splits": {"train": 2, "eval": 1}}})
    world.settle()
    world.start_pod()
    world.settle()


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


def test_suspend_waits_for_the_pod_and_resume_goes_on() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=4, checkpoint=3)
    world.edit(suspend=True)
    world.settle()
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


def test_where_a_suspended_pod_stopped_is_read_before_it_is_gone() -> None:
    """Its last report may have been lost; its final record is there for a moment."""
    world = World()
    until_training(world)
    world.progress = progress(world, step=4, checkpoint=3)
    world.edit(suspend=True)
    world.settle()
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


@pytest.mark.parametrize(
    ("exit_code", "reason", "state", "expected"),
    [
        (64, "", "Failed", "InvalidConfig"),
        (65, "", "Failed", "InvalidData"),
        (79, "", "Failed", "DeviceOutOfMemory"),
        (1, "", "Pending", "Error"),
        (69, "", "Pending", "SourceUnavailable"),
        (74, "", "Pending", "StorageError"),
        (137, "OOMKilled", "Pending", "HostOutOfMemory"),
        (137, "", "Pending", "Killed"),
    ],
)
def test_failures_are_told_apart(exit_code: int, reason: str, state: str, expected: str) -> None:
    world = World()
    until_training(world)
    world.end(exit_code=exit_code, reason=reason, log="boom")
    world.settle()
    status = world.status()
    attempt = (status.steps or [])[1].attempts[-1]  # type: ignore[index]
    assert (status.state, attempt.reason, attempt.counted) == (state, expected, True)
    if state == "Failed":
        assert status.failure is not None
        assert status.failure.reason == expected
        assert condition(world, "Stalled") == ("True", expected)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'runc create failed: unable to start container process: exec: "trian": executable file not found in $PATH: unknown',
            ("'trian'", "executable file not found in $PATH", "spec.command", "spec.image"),
        ),
        (
            'OCI runtime create failed: exec: "/opt/train.sh": stat /opt/train.sh: no such file or directory: unknown',
            ("'/opt/train.sh'", "no such file or directory"),
        ),
        ('exec: "/data/train.sh": permission denied: unknown', ("'/data/train.sh'", "permission denied")),
    ],
)
def test_a_command_that_cannot_be_started_is_not_tried_again(said: str, words: tuple[str, ...]) -> None:
    world = World()
    until_training(world)
    world.end(exit_code=128, reason="StartError", log=said)
    world.settle()
    assert condition(world, "Failed") == ("True", "InvalidConfig")
    for word in words:
        assert word in (world.status().message or "")


def test_a_container_that_could_not_be_made_for_other_reasons_is_tried_again() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=128, reason="StartError", log="failed to create shim task: context deadline exceeded: unknown")
    world.settle()
    assert condition(world, "Ready") == ("False", "Retrying")


@pytest.mark.parametrize("exit_code", [75, 143])
def test_interruptions_are_repeated_without_counting(exit_code: int) -> None:
    world = World(run=manifest(backoffLimit=0))
    until_training(world)
    for _ in range(5):
        world.end(exit_code=exit_code)
        world.settle()
        world.pass_time(61)
        world.settle()
    assert world.created[-1] == "tiny-train-6"
    assert world.status().restarts == 5
    assert world.status().restarts_count_towards_max == 0


def test_a_kill_after_a_new_checkpoint_does_not_count() -> None:
    world = World(run=manifest(backoffLimit=0))
    until_training(world)
    world.progress = progress(world, step=6, checkpoint=5)
    world.settle()
    world.end(exit_code=137)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert world.status().restarts_count_towards_max == 0
    world.progress = None
    world.end(exit_code=137)
    world.settle()
    assert world.status().state == "Failed"
    assert condition(world, "Failed") == ("True", "BackoffLimitExceeded")


def test_retries_wait_longer_each_time_and_end_at_the_limit() -> None:
    world = World(run=manifest(backoffLimit=2))
    until_training(world)
    world.end(exit_code=1, log="boom")
    world.settle()
    assert world.created[-1] == "tiny-train-1"
    world.pass_time(9)
    world.settle()
    assert world.created[-1] == "tiny-train-1"
    world.pass_time(1)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    world.end(exit_code=1)
    world.pass_time(19)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    world.pass_time(1)
    world.settle()
    world.end(exit_code=1, log="the last straw")
    world.settle()
    assert world.status().state == "Failed"
    assert "the last straw" in (world.status().message or "")
    assert "backoffLimit is 2" in (world.status().message or "")


def test_a_deleted_job_is_made_anew_under_the_next_number() -> None:
    world = World()
    until_training(world)
    world.remove_job("tiny-train-1")
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert world.status().restarts_count_towards_max == 0


def test_a_step_is_not_repeated_when_its_job_is_deleted_after_the_next_one_began() -> None:
    """The operator dies between making the next Job and writing down that this step has succeeded."""
    world = World()
    world.settle()
    world.end()
    world.reconcile(dies_after=1)
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]
    world.remove_job("tiny-prepare-1")
    world.settle()
    assert world.created == ["tiny-prepare-1", "tiny-train-1"]
    assert [(s.name, s.state) for s in world.status().steps or ()][:2] == [
        ("prepare", "Succeeded"),
        ("train", "Running"),
    ]


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


def test_an_edit_while_suspended_reaches_the_next_attempt() -> None:
    world = World()
    until_training(world)
    world.edit(suspend=True)
    world.settle()
    world.collect()
    world.settle()
    world.edit(training={"method": "Pretrain", "maxSteps": 10, "perDeviceTrainBatchSize": 2}, suspend=False)
    world.settle()
    assert '"perDeviceTrainBatchSize":2' in world.secrets["tiny-trainyard"]["stringData"]["run.json"]


def test_progress_shows_in_the_columns() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=4, checkpoint=3)
    world.settle()
    summary: Any = world.status().summary
    assert (summary.progress, summary.step, summary.loss, summary.eta, summary.node) == (
        "40%",
        "4/10",
        "1.2500",
        "3m20s",
        "forge",
    )
    assert world.status().checkpoint is not None


def test_what_a_script_reported_last_is_kept_when_it_ends() -> None:
    """It leaves no final record; the report and the end may be seen in one look."""
    world = World(run=manifest(command=["python", "train.py"], image="own:1", model=None, datasets=None, training=None))
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=6)
    world.settle()
    world.progress = progress(world, step=9)
    world.end()
    world.settle()
    summary, trainer = world.status().summary, world.status().trainer_status
    assert summary is not None
    assert trainer is not None
    assert (summary.step, summary.progress, summary.eta) == ("9/10", "100%", None)
    assert trainer.phase == "done"


def test_a_report_from_before_the_end_does_not_take_back_the_final_record() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=6)
    world.settle()
    world.end(record={"stepNumber": 10, "totalSteps": 10, "metrics": {"loss": 0.5}})
    world.settle()
    world.settle()
    assert world.status().current_step == "evaluate"
    summary = world.status().summary
    assert summary is not None
    assert (summary.step, summary.progress, summary.loss) == ("10/10", "100%", "0.5000")


def test_progress_of_an_earlier_attempt_is_not_shown() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=75)
    world.settle()
    world.progress = progress(world, step=9, attempt=1)
    world.settle()
    assert world.status().trainer_status is None


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
