"""Why a pod waits, in words a user can act on."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.controller.runs.world import World, manifest
from trainyard.controller.runs.observe import unknown_nodes
from trainyard.controller.runs.views import JobView, PodView
from trainyard.controller.runs.waiting import Complaint, Waited, needs_events, why_waiting

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = JobView(name="r-train-1", uid="j", step="train", attempt=1, created=START)
PULL = "rpc error: code = NotFound desc = localhost/x:1: not found"


def pod(**fields: object) -> PodView:
    return PodView(name="p", uid="u", job="r-train-1", created=START, **fields)  # type: ignore[arg-type]


def test_trying_and_backing_off_give_the_same_sentence() -> None:
    later = START + timedelta(seconds=60)
    trying = why_waiting(JOB, pod(waiting_reason="ErrImagePull", waiting_message=PULL), now=later)
    backing_off = why_waiting(
        JOB,
        pod(
            waiting_reason="ImagePullBackOff",
            waiting_message=f'Back-off pulling image "localhost/x:1": ErrImagePull: {PULL}',
        ),
        now=later,
    )
    assert trying == backing_off
    assert trying is not None
    assert trying.hopeless
    soon = why_waiting(JOB, pod(waiting_reason="ErrImagePull", waiting_message=PULL), now=START)
    assert soon is not None
    assert not soon.hopeless


@pytest.mark.parametrize(
    ("warning", "reason", "words"),
    [
        (
            Complaint("FailedCreate", 'pods "x" is forbidden: exceeded quota: small, requested: cpu=4'),
            "QuotaExceeded",
            "small",
        ),
        (Complaint("FailedCreate", 'violates PodSecurity "restricted:latest"'), "PodForbidden", "PodSecurity"),
    ],
)
def test_a_job_without_a_pod_is_explained_by_its_events(warning: Complaint, reason: str, words: str) -> None:
    wait = why_waiting(JOB, None, now=START, about=Waited(warning))
    assert wait is not None
    assert (wait.reason, words in wait.message) == (reason, True)


def test_a_volume_that_does_not_mount_is_named() -> None:
    wait = why_waiting(
        JOB, pod(node="forge"), now=START, about=Waited(Complaint("FailedMount", "references non-existent secret key"))
    )
    assert wait is not None
    assert wait.reason == "Volume"


@pytest.mark.parametrize(("seconds", "asks"), [(1, False), (10, True)])
def test_events_are_read_only_after_a_while(seconds: int, asks: bool) -> None:
    assert needs_events(JOB, None, START + timedelta(seconds=seconds)) is asks
    assert needs_events(JOB, pod(waiting_reason="ContainerCreating"), START + timedelta(seconds=seconds)) is asks


def test_a_lost_node_and_a_queue_are_named() -> None:
    lost = why_waiting(JOB, pod(phase="Running", node="arcanine", running=True, node_lost=True), now=START)
    assert lost is not None
    assert "arcanine" in lost.message
    queued = why_waiting(JobView("j", "j", "train", 1, START, suspended=True), None, now=START, queued=True)
    assert queued is not None
    assert queued.reason == "Queued"


def test_named_nodes_of_which_none_exists_are_told_with_those_that_do() -> None:
    world = World(run=manifest(placement={"nodeNames": ["arcanin"]}))
    run = world.observe().run
    assert unknown_nodes(run, ["forge", "arcanine"]) == (
        "spec.placement.nodeNames has arcanin, there are arcanine, forge; correct the name, or add such a node",
    )
    assert unknown_nodes(run, ["forge", "arcanin"]) == ()
    assert unknown_nodes(World().observe().run, ["forge"]) == ()


def test_the_runs_own_secret_comes_back_when_it_was_deleted_before_its_pod_was_there() -> None:
    world = World()
    world.settle()
    world.start_pod()
    waiting = next(reversed(world.pods.values()))
    waiting["spec"] = {"nodeName": "forge"}
    waiting["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    made = world.secrets.pop("tiny-trainyard")
    world.warning = Complaint("FailedMount", 'MountVolume.SetUp failed: secret "tiny-trainyard" not found')
    world.now += timedelta(seconds=10)
    world.settle()
    assert world.secrets["tiny-trainyard"]["stringData"] == made["stringData"]
    assert (world.status().message or "").startswith("the pod cannot start yet")
    assert world.created == ["tiny-prepare-1"]
