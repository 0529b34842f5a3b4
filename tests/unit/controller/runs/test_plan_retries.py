"""What the planner does about attempts that ended badly, or went away."""

from typing import Any

import pytest

from tests.unit.controller.runs.world import World, condition, manifest, progress, until_training


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


@pytest.mark.parametrize(
    ("pod", "job"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, ""),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}, ""),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}, ""),
        (None, "Pod lab/tiny-train-1-x has condition DisruptionTarget matching FailJob rule at index 0"),
    ],
    ids=["evicted by the kubelet", "preempted", "drained", "the pod is gone and its Job remembers"],
)
def test_an_eviction_is_repeated_at_once_and_not_counted(pod: dict[str, Any] | None, job: str) -> None:
    world = World(run=manifest(backoffLimit=0))
    until_training(world)
    world.end(exit_code=1)
    if pod is None:
        del world.pods["tiny-train-1-x"]
    else:
        world.pods["tiny-train-1-x"]["status"] |= pod
    world.jobs["tiny-train-1"]["status"]["conditions"][0]["message"] = job
    world.settle()
    attempts = (world.status().steps or [])[1].attempts or []
    assert (attempts[0].reason, attempts[0].counted) == ("Disrupted", False)
    assert world.created[-1] == "tiny-train-2"
    assert world.status().restarts_count_towards_max == 0


def test_evictions_that_let_nothing_be_done_are_repeated_after_longer_and_longer_pauses() -> None:
    world = World(run=manifest(backoffLimit=0))
    until_training(world)
    pauses = []
    for number in range(2, 10):
        world.end(exit_code=143)
        world.settle()
        waited = 0
        while world.created[-1] != f"tiny-train-{number}":
            world.pass_time(1)
            world.settle()
            waited += 1
        pauses.append(waited)
    assert pauses == [0, 2, 5, 15, 30, 60, 60, 60]


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


def test_a_kill_that_was_quicker_than_the_news_of_a_checkpoint_is_forgiven_by_the_next_attempt() -> None:
    world = World(run=manifest(backoffLimit=1))
    until_training(world)
    world.end(exit_code=137)
    world.settle()
    assert world.status().restarts_count_towards_max == 1
    world.pass_time(10)
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=5, attempt=2, first_step=5)
    world.settle()
    attempts = (world.status().steps or [])[1].attempts or []
    assert [(a.first_step, a.counted) for a in attempts] == [(0, False), (5, None)]
    assert world.status().restarts_count_towards_max == 0
    world.progress = None
    world.end(exit_code=137, record={"outcome": "Failed", "firstStep": 5})
    world.settle()
    assert world.status().restarts_count_towards_max == 1
    assert world.status().state == "Pending"


def test_a_kill_before_any_checkpoint_is_not_forgiven() -> None:
    world = World(run=manifest(backoffLimit=1))
    until_training(world)
    world.end(exit_code=137)
    world.settle()
    world.pass_time(10)
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=1, attempt=2, first_step=0)
    world.settle()
    assert world.status().restarts_count_towards_max == 1


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


def test_a_pod_that_outlives_its_deleted_job_ends_before_the_next_one_begins() -> None:
    """Deleted with --cascade=orphan, or by a garbage collector that had not seen the pod yet."""
    world = World()
    until_training(world)
    del world.jobs["tiny-train-1"]
    world.settle()
    assert world.created[-1] == "tiny-train-1"
    assert world.status().message == "waiting for pod tiny-train-1-x, whose Job is gone, to end"
    del world.pods["tiny-train-1-x"]
    world.settle()
    assert world.created[-1] == "tiny-train-2"


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


def test_the_next_attempt_has_the_token_of_today() -> None:
    """The operator's key was made anew, or an older operator made another kind of token."""
    world = World(token="of yesterday")
    until_training(world)
    world.token = "of today"
    world.settle()
    assert world.secrets["tiny-trainyard"]["stringData"]["token"] == "of yesterday"
    world.end(exit_code=75)
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert world.secrets["tiny-trainyard"]["stringData"]["token"] == "of today"
