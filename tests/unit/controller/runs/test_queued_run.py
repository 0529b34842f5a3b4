"""A run whose Jobs a queue (Kueue) holds: what it takes before it is admitted, and what is made when it is."""

from hypothesis import settings
from hypothesis.stateful import invariant, precondition, rule

from tests.unit.controller.runs.test_plan_properties import RunLife
from tests.unit.controller.runs.world import World, manifest


def queued_world() -> World:
    world = World(run=manifest(backoffLimit=2))
    world.run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    return world


def admit(world: World) -> None:
    job = world.live_job()
    assert job is not None
    job["spec"]["suspend"] = False


def test_a_run_in_a_queue_takes_nothing_but_a_job_until_it_is_admitted() -> None:
    world = queued_world()
    world.settle()
    assert world.live_job() is not None
    assert world.status().message == "waiting for its queue to admit the Job"
    assert world.claims == {}
    assert world.secrets == {}
    admit(world)
    world.settle()
    assert list(world.secrets) == ["tiny-trainyard"]
    assert list(world.claims) == ["tiny-checkpoints"]
    assert world.claims["tiny-checkpoints"]["metadata"]["ownerReferences"]


def test_an_operator_that_dies_while_the_queue_admits_makes_secret_and_claim_later() -> None:
    world = queued_world()
    world.reconcile(dies_after=1)  # after the Job, before the status
    admit(world)
    world.settle()
    assert list(world.claims) == ["tiny-checkpoints"]
    assert list(world.secrets) == ["tiny-trainyard"]


def test_a_pod_that_has_a_node_before_the_operator_looks_gets_the_secret_all_the_same() -> None:
    """A claim that is there already lets the scheduler place the pod at once; its start still waits for the Secret."""
    world = queued_world()
    world.settle()
    admit(world)
    world.start_pod()
    next(iter(world.pods.values()))["status"] = {"phase": "Pending"}
    world.settle()
    assert list(world.secrets) == ["tiny-trainyard"]


def test_a_claim_that_was_never_made_has_not_disappeared() -> None:
    world = queued_world()
    world.settle()
    world.edit(suspend=True)
    world.settle()
    world.collect()
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert world.created == ["tiny-prepare-1", "tiny-prepare-2"]


class QueuedRunLife(RunLife):
    """Crashes, evictions, edits, and a queue that admits a Job at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.world.run["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}

    def admitted(self) -> bool:
        job = self.world.live_job()
        return job is not None and not job["spec"]["suspend"]

    @precondition(lambda self: self.world.live_job() is not None)
    @rule()
    def queue_admits(self) -> None:
        admit(self.world)

    @precondition(lambda self: self.admitted() and self.world.claims)
    @rule()
    def pod_starts(self) -> None:
        self.world.start_pod()

    @precondition(lambda self: self.admitted() and self.world.claims)
    @rule()
    def container_ends(self) -> None:
        self.world.end(record={})

    @invariant()
    def what_was_admitted_can_start(self) -> None:
        self.world.settle()
        job = self.world.live_job()
        if self.admitted() and job is not None and "deletionTimestamp" not in job["metadata"]:
            assert list(self.world.claims) == ["tiny-checkpoints"]
            assert list(self.world.secrets) == ["tiny-trainyard"]


TestQueuedRunLife = QueuedRunLife.TestCase
TestQueuedRunLife.settings = settings(max_examples=30, stateful_step_count=30)
