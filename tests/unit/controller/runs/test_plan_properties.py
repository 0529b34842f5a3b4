"""Whatever happens in whatever order: no Job doubled, none lost, and a plan that has been applied leaves nothing to do.

That a Job whose attempt stands in the status is never made again is asserted by the world itself.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.controller.runs.world import World, manifest
from trainyard.controller.runs.status import is_finished


class RunLife(RuleBasedStateMachine):
    """A run in a world of crashes, evictions, edits and impatient users."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(run=manifest(backoffLimit=2, activeDeadlineSeconds=5000, ttlSecondsAfterFinished=300))
        self.ended_at: int | None = None

    @rule()
    def look(self) -> None:
        self.world.reconcile()

    @rule(writes=st.integers(0, 4))
    def die_in_the_middle(self, writes: int) -> None:
        self.world.reconcile(dies_after=writes)

    @rule(seconds=st.sampled_from([1, 15, 70, 400, 3000]))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.live_job() is not None)
    @rule()
    def pod_starts(self) -> None:
        self.world.start_pod()

    @precondition(lambda self: self.world.live_job() is not None)
    @rule(code=st.sampled_from([0, 0, 0, 1, 65, 69, 75, 75, 137, 143]))
    def container_ends(self, code: int) -> None:
        self.world.end(exit_code=code, record={} if code == 0 else None)

    @precondition(lambda self: bool(self.world.jobs))
    @rule(data=st.data())
    def somebody_deletes_a_job(self, data: st.DataObject) -> None:
        self.world.remove_job(data.draw(st.sampled_from(sorted(self.world.jobs))))

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect()

    @rule(suspend=st.booleans())
    def user_suspends_or_resumes(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @rule(chance=st.integers(0, 5))
    def user_cancels(self, chance: int) -> None:
        if chance == 0:
            self.world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}

    @invariant()
    def never_two_jobs_at_once(self) -> None:
        self.world.live_job()  # asserts it

    @invariant()
    def terminal_stays_terminal(self) -> None:
        if is_finished(self.world.status()):
            if self.ended_at is None:
                self.ended_at = len(self.world.created)
            assert len(self.world.created) == self.ended_at
        else:
            assert self.ended_at is None

    @invariant()
    def an_applied_plan_leaves_nothing_to_do(self) -> None:
        self.world.settle()
        before = self.world.writes
        decided = self.world.reconcile()
        assert decided.actions == ()
        assert self.world.writes == before


class CrashLife(RunLife):
    """The same without settling after every step, so that half-done looks pile up."""

    @invariant()
    def an_applied_plan_leaves_nothing_to_do(self) -> None:
        pass

    def teardown(self) -> None:
        self.world.settle()
        assert self.world.reconcile().actions == ()


TestRunLife = RunLife.TestCase
TestRunLife.settings = settings(max_examples=60, stateful_step_count=30)
TestCrashLife = CrashLife.TestCase
TestCrashLife.settings = settings(max_examples=150, stateful_step_count=40)
