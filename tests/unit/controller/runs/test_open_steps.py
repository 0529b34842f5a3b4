"""Several steps that may be worked on at once: each goes its own way, and none is in another's.

No run has such steps yet. Which step comes after which is data, so the planner is shown a diamond here, and has to get it
right as it stands: prepare, train, then a and b side by side, then c.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.controller.runs.world import World, condition, manifest
from trainyard.api import steps as table
from trainyard.api.conditions import Reason, State
from trainyard.api.names import STEP_LABEL
from trainyard.controller.manifests.metadata import PlannedStep
from trainyard.controller.runs.ending import Plan
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.status import is_finished

DIAMOND = (
    PlannedStep("prepare"),
    PlannedStep("train", frozenset({"prepare"})),
    PlannedStep("a", frozenset({"train"})),
    PlannedStep("b", frozenset({"train"})),
    PlannedStep("c", frozenset({"a", "b"})),
)
EXTRAS = tuple(replace(step, optional=step.name in "abc") for step in DIAMOND)
"""The same diamond, of which only the training has to succeed."""
ROWS = {name: table.Step(State.EVALUATING, Reason.EVALUATING, f"making {name}", "") for name in "abc"}


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in ROWS.items():
        monkeypatch.setitem(table.STEPS, name, row)


@dataclass
class GraphWorld(World):
    """A world whose run has these steps. `focus` is the step whose Job the cluster's half speaks of."""

    graph: tuple[PlannedStep, ...] = DIAMOND
    focus: str = ""

    def observe(self) -> Observed:
        seen = super().observe()
        return replace(seen, run=replace(seen.run, steps=self.graph))

    def live(self) -> dict[str, dict[str, Any]]:
        """Unfinished Jobs, by step."""
        found: dict[str, dict[str, Any]] = {}
        for job in self.jobs.values():
            if not job.get("status", {}).get("conditions"):
                step = job["metadata"]["labels"][STEP_LABEL]
                assert step not in found, f"two unfinished Jobs of {step}"
                found[step] = job
        return found

    def live_job(self) -> dict[str, Any] | None:
        return self.live().get(self.focus)

    def at(self, step: str) -> "GraphWorld":
        self.focus = step
        return self

    def done(self) -> set[str]:
        return {s.name for s in self.status().steps or () if s.state == "Succeeded"}

    def carry_out(self, action: Any) -> None:
        before = set(self.created)
        super().carry_out(action)
        for name in set(self.created) - before:
            step = name.removeprefix("tiny-").rpartition("-")[0]
            after = next(p.after for p in self.graph if p.name == step)
            ended = {
                j["metadata"]["labels"][STEP_LABEL] for j in self.jobs.values() if j.get("status", {}).get("conditions")
            }
            assert after <= self.done() | ended, f"{name} is made before {after} have ended"

    def reach_the_fork(self) -> "GraphWorld":
        self.settle()
        for step in ("prepare", "train"):
            self.at(step).end(record={})
            self.settle()
        return self


def test_steps_that_do_not_need_each_other_run_at_the_same_time() -> None:
    world = GraphWorld().reach_the_fork()
    assert world.created == ["tiny-prepare-1", "tiny-train-1", "tiny-a-1", "tiny-b-1"]
    world.at("a").start_pod()
    world.settle()
    assert world.status().state == "Evaluating"
    assert world.status().message == "making a on forge; starting b"
    world.at("b").end(record={})
    world.settle()
    assert world.created[-1] == "tiny-b-1", "c needs a too"
    world.at("a").end(record={})
    world.settle()
    assert world.created[-1] == "tiny-c-1"
    world.at("c").end(record={})
    world.settle()
    assert (world.status().state, world.status().message) == ("Succeeded", "done")


def test_secret_claims_and_retention_are_asked_for_once_however_many_begin() -> None:
    world = GraphWorld()
    world.settle()
    world.at("prepare").end(record={})
    world.settle()
    world.at("train").end(record={})
    world.secrets.clear()
    actions = world.decide().actions
    assert sorted(str(getattr(a, "body", {}).get("kind")) for a in actions) == ["Job", "Job", "Secret"]


def test_two_trainings_of_several_pods_share_the_service_that_both_need() -> None:
    graph = (DIAMOND[0], *(PlannedStep(f"train-{name}", frozenset({"prepare"})) for name in "xy"))
    volumes = {"checkpoints": {"accessModes": ["ReadWriteMany"]}}
    world = GraphWorld(run=manifest(numNodes=2, storage=volumes), graph=graph)
    world.settle()
    world.at("prepare").end(record={})
    kinds = [getattr(a, "body", {}).get("kind") for a in world.decide().actions]
    assert sorted(map(str, kinds)) == ["Job", "Job", "Service"]
    world.settle()
    assert world.created[1:] == ["tiny-train-x-1", "tiny-train-y-1"]


def test_the_delay_before_one_is_tried_again_holds_no_other() -> None:
    world = GraphWorld().reach_the_fork()
    for step in ("a", "b"):
        world.at(step).start_pod()
    world.at("a").end(exit_code=1, log="boom")
    world.settle()
    assert world.status().state == "Evaluating"
    assert "making b on forge" in (world.status().message or "")
    assert "a is tried again at 2026-01-01T00:00:10Z: exit code 1: boom" in (world.status().message or "")
    assert world.decide().requeue_after == 10
    world.pass_time(5)
    world.at("b").end(exit_code=69)
    world.settle()
    assert world.created[-2:] == ["tiny-a-1", "tiny-b-1"]
    world.pass_time(5)
    world.settle()
    assert world.created[-1] == "tiny-a-2", "its own time has come"
    world.pass_time(15)
    world.settle()
    assert world.created[-1] == "tiny-b-2", "20 s after its end, because two failures have counted by then"


def test_what_fails_for_good_ends_the_run_and_stops_the_others() -> None:
    world = GraphWorld().reach_the_fork()
    for step in ("a", "b"):
        world.at(step).start_pod()
    world.settle()
    world.at("a").end(exit_code=64, log="no such field")
    world.settle()
    assert condition(world, "Failed") == ("True", "InvalidConfig")
    assert "deletionTimestamp" in world.jobs["tiny-b-1"]["metadata"]
    assert "deletionTimestamp" not in world.jobs["tiny-a-1"]["metadata"], "its log is what tells why"


def test_suspension_stops_them_all_and_resuming_starts_them_all() -> None:
    world = GraphWorld().reach_the_fork()
    for step in ("a", "b"):
        world.at(step).start_pod()
    world.edit(suspend=True)
    world.settle()
    world.collect()
    world.settle()
    assert condition(world, "Suspended") == ("True", "Suspended")
    world.edit(suspend=False)
    world.settle()
    assert world.created[-2:] == ["tiny-a-2", "tiny-b-2"]
    assert world.status().restarts == 2
    assert world.status().restarts_count_towards_max == 0


def test_a_pod_without_its_job_is_in_nobodys_way_but_its_own_steps() -> None:
    world = GraphWorld().reach_the_fork()
    for step in ("a", "b"):
        world.at(step).start_pod()
    world.settle()
    del world.jobs["tiny-a-1"]
    world.at("b").end(exit_code=75)
    world.settle()
    assert world.created[-1] == "tiny-b-2"
    assert "waiting for pod tiny-a-1-x, whose Job is gone, to end" in (world.status().message or "")


def test_the_run_goes_on_without_an_optional_step_that_failed_and_what_comes_after_it() -> None:
    world = GraphWorld(run=manifest(backoffLimit=1), graph=EXTRAS).reach_the_fork()
    world.at("a").end(exit_code=65, log="no such format")
    world.settle()
    assert "b-1" in world.created[-1]
    for _ in range(2):
        world.at("b").end(exit_code=1)
        world.settle()
        world.pass_time(400)
        world.settle()
    status = world.status()
    assert world.created == ["tiny-prepare-1", "tiny-train-1", "tiny-a-1", "tiny-b-1", "tiny-b-2"]
    assert (status.state, status.message) == ("Succeeded", "done, without a, b, which failed")
    assert status.restarts_count_towards_max == 0, "what the run can do without costs it nothing"
    assert [(s.name, s.state) for s in status.steps or ()][2:] == [("a", "Failed"), ("b", "Failed"), ("c", "Waiting")]


def test_optional_steps_go_on_failing_alone_while_the_others_succeed() -> None:
    world = GraphWorld(graph=EXTRAS).reach_the_fork()
    world.at("a").end(exit_code=79)
    world.at("b").end(record={})
    world.settle()
    assert world.status().state == "Succeeded"
    assert not any("tiny-c" in name for name in world.created)


@pytest.mark.parametrize(("needed", "reason"), [(EXTRAS[:4] + DIAMOND[4:], "Error")])
def test_a_step_that_can_never_begin_fails_the_run(needed: tuple[PlannedStep, ...], reason: str) -> None:
    world = GraphWorld(graph=needed).reach_the_fork()
    world.at("a").end(exit_code=64)
    world.at("b").end(record={})
    world.settle()
    assert condition(world, "Failed") == ("True", reason)
    assert "c cannot begin, because a step before it failed" in (world.status().message or "")


class GraphLife(RuleBasedStateMachine):
    """The diamond in a world of crashes, evictions, edits and impatient users."""

    graph = DIAMOND

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, row in ROWS.items():
            self.patch.setitem(table.STEPS, name, row)
        spec = manifest(backoffLimit=3, activeDeadlineSeconds=5000, ttlSecondsAfterFinished=300)
        self.world = GraphWorld(run=spec, graph=self.graph)
        self.ended_at: int | None = None

    def teardown(self) -> None:
        self.patch.undo()

    @rule()
    def look(self) -> None:
        self.world.reconcile()

    @rule(writes=st.integers(0, 5))
    def die_in_the_middle(self, writes: int) -> None:
        self.world.reconcile(dies_after=writes)

    @rule(seconds=st.sampled_from([1, 15, 70, 400]))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    def _live(self) -> Iterator[str]:
        yield from sorted(self.world.live())

    @rule(which=st.integers(0, 3))
    def pod_starts(self, which: int) -> None:
        if live := [*self._live()]:
            self.world.at(live[which % len(live)]).start_pod()

    @rule(which=st.integers(0, 3), code=st.sampled_from([0, 0, 0, 0, 1, 65, 69, 75, 137]))
    def container_ends(self, which: int, code: int) -> None:
        if live := [*self._live()]:
            self.world.at(live[which % len(live)]).end(exit_code=code, record={} if code == 0 else None)

    @rule(which=st.integers(0, 9))
    def somebody_deletes_a_job(self, which: int) -> None:
        if self.world.jobs:
            self.world.remove_job(sorted(self.world.jobs)[which % len(self.world.jobs)])

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect()

    @rule(suspend=st.booleans())
    def user_suspends_or_resumes(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @rule(chance=st.integers(0, 9))
    def user_cancels(self, chance: int) -> None:
        if chance == 0:
            self.world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}

    @invariant()
    def an_applied_plan_leaves_nothing_to_do(self) -> None:
        self.world.settle()
        before = self.world.writes
        decided = self.world.reconcile()
        assert decided.actions == ()
        assert self.world.writes == before
        self.none_waits_for_a_step_that_it_does_not_need(decided)

    def none_waits_for_a_step_that_it_does_not_need(self, decided: Plan) -> None:
        """Every step whose turn has come is worked on, or waits for something of its own."""
        status = decided.status
        if (
            is_finished(status)
            or self.world.run["spec"].get("suspend")
            or self.world.run["metadata"].get("annotations")
        ):
            return
        live, done = self.world.live(), self.world.done()
        for planned in self.graph:
            step = next(s for s in status.steps or () if s.name == planned.name)
            if planned.after <= done and step.state not in ("Succeeded", "Failed") and planned.name not in live:
                own = (f"{planned.name} is tried again", f"waiting for pod tiny-{planned.name}-")
                assert any(text in (status.message or "") for text in own), status.message

    @invariant()
    def terminal_stays_terminal_and_nothing_works_on(self) -> None:
        if is_finished(self.world.status()):
            self.ended_at = self.ended_at or len(self.world.created)
            assert len(self.world.created) == self.ended_at
            assert all("deletionTimestamp" in job["metadata"] for job in self.world.live().values())


class OptionalLife(GraphLife):
    """The same where the run can do without a, b and c."""

    graph = EXTRAS


TestGraphLife = GraphLife.TestCase
TestGraphLife.settings = settings(max_examples=60, stateful_step_count=30)
TestOptionalLife = OptionalLife.TestCase
TestOptionalLife.settings = settings(max_examples=40, stateful_step_count=30)
