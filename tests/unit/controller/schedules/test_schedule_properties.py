"""Whatever happens in whatever order: no run twice, none out of time, and a plan that has been applied leaves nothing to do."""

from datetime import UTC, datetime

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.controller.schedules.world import World, manifest

TRIGGERS = [
    {"name": "code", "cooldownSeconds": 900, "gitPath": {"url": "http://git/repo.git"}},
    {
        "name": "decay",
        "prometheus": {
            "url": "http://prom",
            "query": "up",
            "comparison": "LessThan",
            "threshold": 1,
            "forSeconds": 600,
        },
    },
]


class ScheduleLife(RuleBasedStateMachine):
    """A schedule in a world of crashes, long runs, edits and impatient users."""

    @initialize(
        policy=st.sampled_from(["Allow", "Forbid", "Replace"]),
        catch_up=st.sampled_from(["Skip", "RunOnce"]),
        variants=st.integers(0, 3),
        variant_policy=st.sampled_from(["Sequential", "Parallel"]),
        limit=st.integers(0, 2),
        min_interval=st.sampled_from([None, 600, 5400]),
    )
    def begin(
        self, policy: str, catch_up: str, variants: int, variant_policy: str, limit: int, min_interval: int | None
    ) -> None:
        spec = {"minIntervalSeconds": min_interval} if min_interval else {}
        self.world = World(
            manifest(
                schedule="*/30 * * * *",
                timeZone="Europe/Berlin",
                concurrencyPolicy=policy,
                catchUp=catch_up,
                variants=[{"name": n} for n in "abc"[:variants]],
                variantPolicy=variant_policy,
                successfulRunsHistoryLimit=limit,
                failedRunsHistoryLimit=limit,
                triggers=TRIGGERS,
                **spec,
            )
        )
        self.manual = 0
        self.git = "commit-0"
        self.changes = 0

    @rule()
    def look(self) -> None:
        self.world.look()

    @rule(writes=st.integers(0, 5))
    def die_in_the_middle(self, writes: int) -> None:
        self.world.look(dies_after=writes)

    @rule(seconds=st.sampled_from([1, 29, 299, 301, 1500, 1801, 5000, 90000]))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.live())
    @rule(data=st.data(), reason=st.sampled_from(["Succeeded", "Succeeded", "Error", "Unchanged"]))
    def run_ends(self, data: st.DataObject, reason: str) -> None:
        self.world.end(data.draw(st.sampled_from(self.world.live())), reason=reason)

    @rule()
    def cancelled_runs_end(self) -> None:
        for name in self.world.live():
            if "trainyard.dev/cancel" in self.world.runs[name]["metadata"]["annotations"]:
                self.world.end(name, reason="Cancelled")

    @precondition(lambda self: self.world.runs)
    @rule(data=st.data())
    def somebody_deletes_a_run(self, data: st.DataObject) -> None:
        del self.world.runs[data.draw(st.sampled_from(sorted(self.world.runs)))]

    @rule()
    def run_now(self) -> None:
        self.manual += 1
        self.world.annotate(run_now=str(self.manual))

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @rule()
    def git_is_read(self) -> None:
        self.world.answer("code", self.git)

    @rule()
    def somebody_pushes(self) -> None:
        self.changes += 1
        self.git = f"commit-{self.changes}"

    @rule(holds=st.booleans())
    def prometheus_is_read(self, holds: bool) -> None:
        self.world.answer("decay", "holds", holds=holds)

    @rule(name=st.sampled_from(["code", "decay"]))
    def a_source_is_down(self, name: str) -> None:
        self.world.source_down(name)

    @rule(schedule=st.sampled_from(["*/30 * * * *", "7 * * * *", "0 3 * * MON"]))
    def edit_the_clock(self, schedule: str) -> None:
        self.world.settle()
        before = set(self.world.created)
        self.world.edit(schedule=schedule)
        self.world.settle()
        assert set(self.world.created) == before, "the edit fired"

    @invariant()
    def no_run_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        created = self.world.created
        # A run that somebody deleted before the status could say that it was made is made once more; no other.
        assert all(created.count(name) <= 2 for name in created)

    @invariant()
    def forbid_means_one_start_at_a_time(self) -> None:
        if not hasattr(self, "world") or self.world.schedule["spec"]["concurrencyPolicy"] == "Allow":
            return
        starts = {name.rpartition("-")[2] for name in self.world.live()}
        assert len(starts) <= 1, self.world.live()

    @invariant()
    def slots_are_never_started_late_unless_asked_for(self) -> None:
        if not hasattr(self, "world") or self.world.schedule["spec"]["catchUp"] == "RunOnce":
            return
        for name, run in self.world.runs.items():
            number = name.rpartition("-")[2]
            if len(number) == 8 and self._first_of_its_start(name):
                made = datetime.fromisoformat(run["metadata"]["creationTimestamp"])
                slot = datetime.fromtimestamp(int(number) * 60, UTC)
                assert made >= slot

    def _first_of_its_start(self, name: str) -> bool:
        return name.count("-") == 1 or "-a-" in name

    @invariant()
    def every_start_by_hand_was_asked_for(self) -> None:
        if hasattr(self, "world"):
            by_hand = {
                n.rpartition("-")[2]
                for n, r in self.world.runs.items()
                if r["metadata"]["annotations"]["trainyard.dev/started-by"] == "RunNow"
            }
            assert len(by_hand) <= self.manual

    @invariant()
    def every_start_by_git_had_a_change(self) -> None:
        if hasattr(self, "world"):
            started = {
                n.rpartition("-")[2]
                for n, r in self.world.runs.items()
                if r["metadata"]["annotations"]["trainyard.dev/started-by"] == "code"
            }
            assert len(started) <= self.changes

    @invariant()
    def an_applied_plan_leaves_nothing_to_do(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            before = self.world.writes
            assert self.world.look().actions == ()
            assert self.world.writes == before
            assert self.world.status.observed_generation == self.world.schedule["metadata"]["generation"]

    @invariant()
    def the_next_time_is_always_told(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            following = self.world.status.next_schedule_time
            if self.world.schedule["spec"].get("suspend"):
                assert following is None
            else:
                assert following is not None
                assert datetime.fromisoformat(following) > self.world.now


class CrashLife(ScheduleLife):
    """The same without settling after every step, so that half-done looks pile up."""

    @invariant()
    def an_applied_plan_leaves_nothing_to_do(self) -> None:
        pass

    @invariant()
    def the_next_time_is_always_told(self) -> None:
        pass

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            assert self.world.look().actions == ()


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
TestScheduleLife = ScheduleLife.TestCase
TestScheduleLife.settings = settings(max_examples=12, stateful_step_count=25, phases=PHASES)
TestCrashLife = CrashLife.TestCase
TestCrashLife.settings = settings(max_examples=30, stateful_step_count=35, phases=PHASES)
