"""Whatever happens in whatever order: no trial twice, none lost, the same proposals, never too many at a time, and an end."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.controller.sweeps.world import ASHA, World, ended, manifest
from trainyard.api.sweep.trainingsweep import ASSIGNMENTS_ANNOTATION, RUNGS_ANNOTATION

TRIALS = 13


class SweepLife(RuleBasedStateMachine):
    """A sweep in a world of crashes, failing runs, deletions and pauses."""

    @initialize(
        algorithm=st.sampled_from(["Random", "Sobol", "TPE"]),
        parallel=st.integers(1, 4),
        early=st.booleans(),
        stride=st.sampled_from([3, 15, 45]),
    )
    def begin(self, algorithm: str, parallel: int, early: bool, stride: int) -> None:
        self.parallel = parallel
        spec: dict[str, Any] = {"earlyStopping": ASHA} if early else {}
        sweep = manifest(algorithm=algorithm, parallelTrials=parallel, numTrials=TRIALS, maxFailedTrials=TRIALS, **spec)
        self.world = World(sweep, stride=stride)
        self.first: dict[str, str] = {}
        self.rungs: dict[str, dict[str, Any]] = {}
        self.undisturbed = True
        """Nobody has failed or been deleted, so that TPE learns what it learned the first time."""

    @rule()
    def look(self) -> None:
        self.world.look()

    @rule(writes=st.integers(0, 4))
    def die_in_the_middle(self, writes: int) -> None:
        self.world.look(dies_after=writes)

    @rule()
    def time_passes(self) -> None:
        self.world.tick()

    @rule(suspend=st.booleans())
    def pause_or_go_on(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def a_run_fails(self, data: st.DataObject) -> None:
        self.world.reasons[data.draw(st.sampled_from(self.live()))] = "out of luck"
        self.undisturbed = False

    @precondition(lambda self: self.world.runs and "completionTime" not in self.world.sweep.get("status", {}))
    @rule(data=st.data())
    def somebody_deletes_a_run(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.runs)))
        del self.world.runs[name]
        self.rungs.pop(name, None)
        self.undisturbed = False

    def live(self) -> list[str]:
        return [name for name, raw in self.world.runs.items() if not ended(raw)]

    @invariant()
    def numbers_are_those_of_the_sweep(self) -> None:
        assert set(self.world.runs) <= {f"tune-{number}" for number in range(1, TRIALS + 1)}

    @invariant()
    def no_more_train_than_may(self) -> None:
        assert sum(not self.world.runs[name]["spec"].get("suspend") for name in self.live()) <= self.parallel

    @invariant()
    def a_number_always_gets_the_same_values(self) -> None:
        learns = self.world.sweep["spec"]["algorithm"] == "TPE" and not self.undisturbed
        for name, raw in self.world.runs.items():
            values = raw["metadata"]["annotations"][ASSIGNMENTS_ANNOTATION]
            assert learns or self.first.setdefault(name, values) == values

    @invariant()
    def what_was_measured_at_a_rung_stands(self) -> None:
        for name, raw in self.world.runs.items():
            noted = json.loads(raw["metadata"]["annotations"].get(RUNGS_ANNOTATION, "{}"))
            assert noted.items() >= self.rungs.get(name, {}).items()
            self.rungs[name] = noted

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.reasons.clear()
        self.world.edit(suspend=False)
        self.world.run_to_the_end(ticks=400)
        status = self.world.status
        assert [entry.number for entry in status.trials or ()] == list(range(1, TRIALS + 1))
        assert all(entry.state in ("Succeeded", "Failed", "Stopped") for entry in status.trials or ())


TestSweepLife = SweepLife.TestCase
TestSweepLife.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
