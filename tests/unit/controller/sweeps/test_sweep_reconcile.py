"""The shell around the planner, against an API server of loopback HTTP: what it writes, and what a killed operator leaves."""

import random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.sweeps.world import ASHA, NAME, NAMESPACE, RATE, World, WorldHistory, manifest
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.sweeps.metrics import SweepMetrics
from trainyard.controller.sweeps.reconcile import REFUSED_RETRY_SECONDS, SweepReconciler

KEY = (NAMESPACE, NAME)
WRITES = ("create", "patch", "replace_status")


class Killed(Exception):
    """The operator's process is gone."""


class Doomed:
    """A client of the API server whose process ends at its n-th write: just before it, or just after, without an answer."""

    def __init__(self, cluster: Cluster, *, writes: int, after: bool) -> None:
        self._cluster, self._left, self._after = cluster, writes, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._cluster, name)
        if name not in WRITES:
            return real

        async def write(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            answer = await real(*arguments, **more)
            if self._left == 0:
                raise Killed
            return answer

        return write


class Witness:
    """Takes Events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def record(self, run: Any, *, type: str, reason: str, message: str) -> None:
        self.events.append(reason)


class Lab:
    """A sweep on the API server; runs are trained by `World`."""

    def __init__(self, kube: FakeKube, cluster: Cluster, sweep: dict[str, Any]) -> None:
        self.kube, self.cluster, self.world, self.witness = kube, cluster, World(sweep), Witness()
        kube.put("trainingsweeps", sweep)
        self.reconciler = self.operator(cluster)

    def operator(self, cluster: Any) -> SweepReconciler:
        """A new process: it knows nothing."""
        clock: Any = FakeClock()
        history = WorldHistory(self.world, lambda: self.kube.objects["trainingruns"])
        metrics = SweepMetrics(CollectorRegistry())
        return SweepReconciler(cluster=cluster, history=history, events=self.witness, metrics=metrics, clock=clock)  # type: ignore[arg-type]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects["trainingsweeps"][KEY].get("status") or {}
        return found

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        return {name: raw for (_, name), raw in self.kube.objects["trainingruns"].items()}

    async def settle(self) -> None:
        for _ in range(30):
            before = len(self.kube.writes())
            await self.reconciler.reconcile(KEY)
            if len(self.kube.writes()) == before:
                return
        raise AssertionError("it never settles")

    def tick(self) -> None:
        self.world.runs = self.runs
        self.world.tick()

    async def to_the_end(self) -> None:
        for _ in range(3000):
            await self.settle()
            if "completionTime" in self.status:
                return
            self.tick()
        raise AssertionError("no end")

    async def to_the_end_with_kills(self, kills: int, chance: random.Random) -> int:
        """Operators that are killed at any write, until so many have been; then one that is not. Returns how many were."""
        killed = 0
        while killed < kills and "completionTime" not in self.status:
            doomed = self.operator(
                Doomed(self.cluster, writes=chance.choice((1, 1, 1, 2)), after=chance.random() < 0.5)
            )
            try:
                while "completionTime" not in self.status:
                    before = len(self.kube.writes())
                    await doomed.reconcile(KEY)
                    if len(self.kube.writes()) == before:
                        self.tick()
            except Killed:
                killed += 1
        await self.to_the_end()
        return killed

    def proposals(self) -> dict[str, str]:
        return {name: raw["metadata"]["annotations"]["trainyard.dev/assignments"] for name, raw in self.runs.items()}


@pytest.fixture
async def labs(kube: FakeKube, cluster: Cluster) -> Any:
    def make(sweep: dict[str, Any]) -> Lab:
        for plural in ("trainingruns", "trainingsweeps"):
            kube.objects[plural].clear()
        kube.requests.clear()
        return Lab(kube, cluster, sweep)

    return make


async def test_a_sweep_from_beginning_to_end(labs: Any) -> None:
    lab = labs(manifest(numTrials=3))
    await lab.to_the_end()
    assert list(lab.runs) == ["tune-1", "tune-2", "tune-3"]
    assert lab.status["state"] == "Succeeded"
    assert lab.status["trialCounts"]["succeeded"] == 3
    assert lab.witness.events.count("TrialCreated") == 3
    assert "NewBest" in lab.witness.events
    await lab.reconciler.reconcile(KEY)
    assert lab.kube.writes()[-1] == "PUT trainingsweeps/status"  # and nothing after it


@pytest.mark.parametrize("algorithm", ["TPE", "Sobol"])
async def test_fifty_kills_lose_no_trial_double_none_and_change_no_proposal(labs: Any, algorithm: str) -> None:
    spec = {"algorithm": algorithm, "numTrials": 27, "parallelTrials": 3}
    undisturbed = labs(manifest(**spec))
    await undisturbed.to_the_end()
    expected = undisturbed.proposals()
    assert len(expected) == 27
    chance = random.Random(1)
    lab = labs(manifest(**spec))
    assert await lab.to_the_end_with_kills(50, chance) == 50
    assert lab.kube.requests.count("POST trainingruns") >= 27  # a create whose answer was lost is not asked for again
    assert lab.proposals() == expected
    assert lab.status["best"] == undisturbed.status["best"]
    assert lab.world.steps == 27 * 90


async def test_fifty_kills_with_early_stopping_lose_and_double_nothing(labs: Any) -> None:
    spec = {"algorithm": "Random", "numTrials": 27, "parallelTrials": 3, "earlyStopping": ASHA}
    undisturbed = labs(manifest(**spec))
    await undisturbed.to_the_end()
    lab = labs(manifest(**spec))
    assert await lab.to_the_end_with_kills(50, random.Random(2)) == 50
    assert lab.proposals() == undisturbed.proposals()
    assert lab.status["best"]["run"] == undisturbed.status["best"]["run"]
    done = [raw["status"]["trainerStatus"]["step"] for raw in lab.runs.values()]
    assert len(done) == 27
    assert lab.world.steps == sum(done), "a step was done twice"


async def test_a_run_of_somebody_else_under_the_name_of_a_trial_fails_that_trial(labs: Any) -> None:
    lab = labs(manifest(numTrials=2))
    lab.kube.put("trainingruns", {"metadata": {"namespace": NAMESPACE, "name": "tune-1"}, "spec": {}})
    await lab.reconciler.reconcile(KEY)
    trials = {entry["number"]: entry for entry in lab.status["trials"]}
    assert trials[1]["state"] == "Failed"
    assert trials[1]["message"] == (
        "a TrainingRun of this name exists and does not belong to this sweep; delete or rename it"
    )
    assert trials[2]["state"] == "Running"
    lab.kube.remove("trainingruns", NAMESPACE, "tune-1")
    lab.runs["tune-2"]["status"] = {"state": "Failed", "conditions": [{"type": "Failed", "status": "True"}]}
    await lab.reconciler.reconcile(KEY)
    assert "tune-1" in lab.runs


async def test_what_the_api_server_refuses_fails_that_trial_and_no_other(labs: Any) -> None:
    lab = labs(manifest(numTrials=2))
    lab.kube.refuses = lambda plural, body: plural == "trainingruns" and body["metadata"].get("name") == "tune-1"
    await lab.reconciler.reconcile(KEY)
    assert [entry["state"] for entry in lab.status["trials"]] == ["Failed", "Running"]
    assert lab.status["trials"][0]["message"].startswith("the API server refuses it")


async def test_labels_edited_away_are_written_again_and_the_trial_is_not_doubled(labs: Any) -> None:
    lab = labs(manifest(numTrials=2))
    await lab.settle()
    lab.runs["tune-1"]["metadata"]["labels"] = {}
    await lab.settle()
    assert list(lab.runs) == ["tune-1"]
    assert lab.runs["tune-1"]["metadata"]["labels"]["trainyard.dev/sweep"] == NAME


async def test_a_run_that_only_has_the_label_is_none_of_its_trials(labs: Any) -> None:
    lab = labs(manifest(numTrials=1))
    labels = {"trainyard.dev/sweep-uid": manifest()["metadata"]["uid"]}
    stranger = {"metadata": {"namespace": NAMESPACE, "name": "tune-7", "labels": labels}, "spec": {"suspend": True}}
    lab.kube.put("trainingruns", stranger)
    await lab.to_the_end()
    assert [entry["number"] for entry in lab.status["trials"]] == [1]


async def test_a_spec_that_a_newer_schema_would_refuse_is_told_in_the_status(labs: Any) -> None:
    wrong = manifest()
    wrong["spec"]["algorithm"] = "Grids"
    lab = labs(wrong)
    await lab.reconciler.reconcile(KEY)
    assert lab.status["state"] == "Invalid"
    assert "spec.algorithm" in lab.status["message"]


async def test_a_sweep_that_is_being_deleted_makes_nothing(labs: Any) -> None:
    lab = labs(manifest())
    lab.kube.objects["trainingsweeps"][KEY]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await lab.reconciler.reconcile(KEY) is None
    assert not lab.kube.writes()


async def test_a_quota_is_waited_for(labs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.controller import fake_kube

    lab = labs(manifest(parameters=[RATE]))
    lab.kube.refuses = lambda plural, body: plural == "trainingruns"
    with monkeypatch.context() as patched:
        refuse = fake_kube._failure
        patched.setattr(fake_kube, "_failure", lambda status, reason: refuse(403, "Forbidden"))
        assert await lab.reconciler.reconcile(KEY) == REFUSED_RETRY_SECONDS
    assert lab.status["state"] == "Waiting"
    assert "tune-1 waits" in lab.status["message"]
    lab.kube.refuses = lambda plural, body: False
    await lab.to_the_end()
    assert lab.status["state"] == "Succeeded"
