"""A cluster in memory: just enough of the API server and of the run side to plan sweeps against.

Runs train by themselves, `stride` steps a tick, unless they are suspended, and measure what `curve` says. All that outlives the operator
is the sweep and its runs, as raw objects.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.unit.controller.runs import crd_schema
from trainyard.api.crd import training_sweep_crd
from trainyard.api.sweep.children import SweepRef, rungs_of
from trainyard.api.sweep.status import TrainingSweepStatus
from trainyard.api.sweep.trainingsweep import ASSIGNMENTS_ANNOTATION, TrainingSweep
from trainyard.api.sweep.validity import faults
from trainyard.controller.loop.subjects import Notice
from trainyard.controller.reports.history import Curves, Key, Point
from trainyard.controller.sweeps.observed import Adjust, Create, Observed, Plan
from trainyard.controller.sweeps.plan import plan
from trainyard.controller.sweeps.trial import noted_rungs, number_of, passed, read_trial, value_at_rung

UID = "bbbb2222-3333-4444-5555-666677778888"
NAME, NAMESPACE = "tune", "lab"
METRIC = "eval_loss"
RATE: dict[str, Any] = {"name": "training.learningRate", "double": {"min": 1e-5, "max": 1e-1, "log": True}}
RUN_SPEC: dict[str, Any] = {
    "model": {
        "scratch": {"architecture": "llama", "config": {"hidden_size": 64}, "tokenizer": {"trainVocabSize": 500}}
    },
    "datasets": [{"name": "text", "inline": {"text": "hello"}, "split": {"eval": 0.1}}],
    "training": {"method": "Pretrain", "maxSteps": 90, "evalSteps": 10},
}
ASHA = {"asha": {"minimumSteps": 10, "reductionFactor": 3, "rungs": 2}}


@cache
def status_schema() -> dict[str, Any]:
    version = training_sweep_crd()["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


Values = Mapping[str, Any]
Curve = Callable[[Values, int], float]


def manifest(**spec: Any) -> dict[str, Any]:
    """A sweep over the learning rate; keyword arguments replace parts of its spec."""
    given = {
        "template": {"spec": copy.deepcopy(RUN_SPEC)},
        "parameters": [RATE],
        "objective": {"metric": METRIC, "direction": "Minimize"},
        "algorithm": "Sobol",
        "seed": 42,
        "numTrials": 4,
        **spec,
    }
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingSweep",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": 1},
        "spec": {name: value for name, value in given.items() if value is not None},
    }


def reference(raw: dict[str, Any]) -> SweepRef:
    parsed = TrainingSweep.model_validate({k: v for k, v in raw.items() if k != "status"})
    return SweepRef.of(raw, parsed)


def bowl(values: Values, step: int) -> float:
    """Best at a learning rate of 1e-3; falls with the steps, so that who is ahead early is ahead late."""
    return (math.log10(values["training.learningRate"]) + 3) ** 2 + 1 / (1 + step)


@dataclass
class World:
    """The sweep, its runs, and time."""

    sweep: dict[str, Any] = field(default_factory=manifest)
    curve: Curve = bowl
    stride: int = 5
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    """Names of all runs that were ever made, in order."""
    most_at_once: int = 0
    steps: int = 0
    """Optimizer steps that all runs together have done."""
    notices: list[Notice] = field(default_factory=list)
    _read: tuple[int, SweepRef, tuple[str, ...]] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    """Runs that fail at their next tick, with the message."""

    # ---- the operator's half

    @property
    def status(self) -> TrainingSweepStatus:
        return TrainingSweepStatus.model_validate(self.sweep.get("status") or {})

    def observe(self) -> Observed:
        generation = self.sweep["metadata"]["generation"]
        if self._read is None or self._read[0] != generation:
            sweep = reference(self.sweep)
            self._read = (generation, sweep, tuple(faults(sweep)))
        _, sweep, wrong = self._read
        seen = Observed(sweep, generation, self.status, self.now, faults=wrong)
        trials, noted = {}, {}
        for raw in self.runs.values():
            number = number_of(sweep.name, raw)
            assert number is not None
            points = self.points(raw)
            reached = {r: value_at_rung(points, METRIC, r) for r in passed(raw, rungs_of(sweep.spec))}
            trials[number] = read_trial(number, raw, metric=sweep.spec.objective.metric, reached=reached)
            noted[number] = frozenset(noted_rungs(raw))
        return replace(seen, trials=trials, noted=noted)

    def look(self, *, dies_after: int | None = None) -> Plan:
        """One look; with `dies_after` the operator ends after so many writes of it."""
        decided = plan(self.observe())
        budget = math.inf if dies_after is None else dies_after
        for action in decided.actions:
            if budget <= 0:
                return decided
            self.carry_out(action)
            budget -= 1
        if budget > 0:
            self.sweep["status"] = decided.status.model_dump(by_alias=True, exclude_none=True)
            assert not list(crd_schema.faults(self.sweep["status"], status_schema()))
            self.notices += decided.notices
        return decided

    def carry_out(self, action: Create | Adjust) -> None:
        match action:
            case Create(_, body):
                name = body["metadata"]["name"]
                assert name not in self.runs, f"{name} was made although the picture showed it"
                self.add(body)
            case Adjust(name, patch):
                run = self.runs[name]
                run["metadata"]["annotations"] |= patch.get("metadata", {}).get("annotations", {})
                run["spec"] |= patch.get("spec", {})

    def settle(self, rounds: int = 20) -> Plan:
        """Look until nothing changes any more at this moment."""
        for _ in range(rounds):
            before = self.picture()
            decided = self.look()
            if before == self.picture():
                return decided
        raise AssertionError("it never settles")

    def picture(self) -> str:
        return json.dumps([self.sweep.get("status"), self.runs], sort_keys=True)

    def run_to_the_end(self, ticks: int = 5000) -> "World":
        for _ in range(ticks):
            self.settle()
            if "completionTime" in self.sweep["status"]:
                return self
            self.tick()
        raise AssertionError(f"no end: {self.status.message}")

    # ---- the cluster's half

    def add(self, body: dict[str, Any]) -> None:
        body = copy.deepcopy(body)
        body["metadata"]["uid"] = f"uid-{body['metadata']['name']}-{len(self.created)}"
        self.runs[body["metadata"]["name"]] = body
        self.created.append(body["metadata"]["name"])

    def tick(self) -> None:
        """Every run does what it is told for a while."""
        self.now += timedelta(seconds=60)
        live = [raw for raw in self.runs.values() if not ended(raw)]
        self.most_at_once = max(self.most_at_once, sum(not raw["spec"].get("suspend") for raw in live))
        for raw in live:
            self.advance(raw)

    def advance(self, raw: dict[str, Any]) -> None:
        status = raw.setdefault("status", {})
        if raw["spec"].get("suspend"):
            status |= {"state": "Suspended", "conditions": [{"type": "Suspended", "status": "True"}]}
            return
        if (why := self.reasons.pop(raw["metadata"]["name"], None)) is not None:
            kind = {"type": "Failed", "status": "True", "reason": "Error", "message": why}
            status |= {"state": "Failed", "conditions": [kind]}
            return
        last = raw["spec"]["training"]["maxSteps"]
        before = status.get("trainerStatus", {}).get("step", 0)
        step = min(before + self.stride, last)
        self.steps += step - before
        status |= {"state": "Training", "conditions": [], "trainerStatus": {"step": step, "metrics": []}}
        if points := self.points(raw):
            value = points[-1].values[METRIC]
            status["trainerStatus"]["metrics"] = [{"name": METRIC, "value": str(value)}]
        if step == last:
            status |= {"state": "Succeeded", "conditions": [{"type": "Complete", "status": "True"}]}

    def points(self, raw: dict[str, Any]) -> list[Point]:
        """What the run has measured so far."""
        every = raw["spec"]["training"].get("evalSteps", 10)
        step = raw.get("status", {}).get("trainerStatus", {}).get("step", 0)
        values = json.loads(raw["metadata"]["annotations"][ASSIGNMENTS_ANNOTATION])
        return [Point(float(at), at, {METRIC: self.curve(values, at)}) for at in range(every, step + 1, every)]

    def edit(self, **spec: Any) -> None:
        self.sweep["spec"] |= spec
        self.sweep["metadata"]["generation"] += 1

    def assignments(self) -> dict[str, Any]:
        """Of each run by name."""
        return {n: json.loads(r["metadata"]["annotations"][ASSIGNMENTS_ANNOTATION]) for n, r in self.runs.items()}


class WorldHistory:
    """The curves of a world's runs, as the reconciler asks for them."""

    def __init__(self, world: World, runs: Callable[[], Mapping[Any, dict[str, Any]]]) -> None:
        self._world, self._runs = world, runs

    async def points(self, key: Key, uid: str) -> Curves:
        return Curves(tuple(self._world.points(self._runs()[key])))


def ended(raw: Mapping[str, Any]) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in raw.get("status", {}).get("conditions", ()))
