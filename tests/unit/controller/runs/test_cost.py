"""What a run costs, reckoned from its attempts; the limit that stops it, and the approval that it waits for."""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.controller.runs import world as worlds
from tests.unit.controller.runs.world import World, condition, manifest, progress, until_training
from trainyard.api.run.status import ATTEMPTS_KEPT, TrainingRunStatus
from trainyard.controller.runs.announce import notices
from trainyard.controller.runs.cost import Prices, spent, written
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.quota import used
from trainyard.controller.runs.status import is_finished

TWO = {"limits": {"nvidia.com/gpu": 2}}
RATE = {"hourlyRate": 3.6, "currency": "EUR"}
"""A thousandth a second."""


def training(**spec: Any) -> World:
    world = World(run=manifest(resources=TWO, **spec))
    until_training(world)
    return world


def cost(world: World) -> dict[str, str]:
    return dict((world.run.get("status") or {}).get("cost") or {})


def message(world: World) -> str:
    return world.status().message or ""


def test_hours_and_money_from_the_start_of_the_pod_to_its_end() -> None:
    world = World(run=manifest(resources=TWO, cost=RATE))
    until_training(world)
    world.pass_time(500)
    world.settle()
    assert cost(world) == {"gpuHours": "0.2778", "hourlyRate": "3.6", "currency": "EUR", "actual": "1"}
    world.end(record={})
    world.pass_time(5000)
    world.settle()
    assert cost(world)["actual"] == "1", "the evaluation has no GPU"
    assert cost(world)["estimated"] == "1", "nothing more is to come"
    (attempt,) = world.status().steps[1].attempts  # type: ignore[index, misc]
    assert attempt.gpus == 2


def test_what_waits_for_a_gpu_costs_nothing() -> None:
    world = World(run=manifest(resources=TWO, cost=RATE))
    world.settle()
    world.end(record={})
    world.settle()
    world.pending_pod(message="0/2 nodes are available: Insufficient nvidia.com/gpu")
    world.pass_time(5000)
    world.settle()
    assert cost(world)["actual"] == "0"


def test_a_run_without_gpus_and_without_a_price_has_no_cost_at_all() -> None:
    world = World()
    until_training(world)
    assert cost(world) == {}
    world = training()
    world.pass_time(3600)
    world.settle()
    assert cost(world) == {"gpuHours": "2"}, "without a price hours alone are counted"


def test_all_pods_of_a_training_hold_gpus() -> None:
    world = training(numNodes=3, storage={"checkpoints": {"accessModes": ["ReadWriteMany"]}}, cost=RATE)
    world.pass_time(100)
    world.settle()
    assert cost(world)["actual"] == "0.6"


@pytest.mark.parametrize(
    ("own", "product", "rate"),
    [({}, "H100", "2.5"), ({}, "T4", "0.35"), ({}, None, "0.35"), ({"hourlyRate": 1.0}, "H100", "1")],
)
def test_the_price_is_the_runs_own_or_that_of_its_product(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], product: str | None, rate: str
) -> None:
    prices = Prices({"H100": 2.5, "*": 0.35}, "USD")
    monkeypatch.setattr(worlds, "POLICY", replace(worlds.POLICY, prices=prices))
    placement = {} if product is None else {"nodeSelector": {"nvidia.com/gpu.product": product}}
    world = training(cost=own, placement=placement)
    assert (cost(world)["hourlyRate"], cost(world)["currency"]) == (rate, "USD")


def test_the_estimate_is_what_the_training_tells_before_that_the_deadline_and_else_nothing() -> None:
    world = training(cost=RATE)
    assert "estimated" not in cost(world), "nobody knows yet"
    world.edit(activeDeadlineSeconds=5000)
    world.settle()
    assert cost(world)["estimated"] == "10"
    world.progress = progress(world, step=1)
    world.pass_time(100)
    world.settle()
    assert cost(world)["estimated"] == "0.6", "100 s are over, and 200 s are told to be left"


def test_of_phases_only_the_last_one_tells_what_is_left() -> None:
    spec: dict[str, Any] = {
        "phases": [{"name": "one"}, {"name": "two", "training": {"method": "CPT"}}],
        "cost": RATE,
        "resources": TWO,
    }
    world = World(run=manifest(**spec))
    until_training(world)
    world.progress = progress(world, step=1).model_copy(update={"step": "train-one"})
    world.settle()
    assert "estimated" not in cost(world)
    world.end(record={})
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=1).model_copy(update={"step": "train-two"})
    world.settle()
    assert cost(world)["estimated"] == "0.4"


def test_a_run_over_its_limit_stops_with_a_checkpoint_and_goes_on_when_the_limit_is_raised() -> None:
    world = training(cost={**RATE, "limit": 1})
    world.progress = progress(world, step=4, checkpoint=3)
    world.pass_time(499)
    world.settle()
    assert world.status().state == "Training"
    assert world.decide().requeue_after == pytest.approx(1), "it is looked at when the limit is due"
    world.pass_time(1)
    before = world.status()
    world.settle()
    assert (world.status().state, condition(world, "Ready")) == ("Pending", ("False", "Suspending"))
    world.end(exit_code=75)
    world.settle()
    world.collect()
    world.pass_time(1000)
    world.settle()
    assert (world.status().state, condition(world, "Suspended")) == ("Suspended", ("True", "CostLimitReached"))
    assert message(world) == (
        "spec.cost.limit of 1 EUR is reached: 1 EUR for 0.2778 GPU hours; it goes on from step 3 when spec.cost.limit is raised"
    )
    assert ("Warning", "CostLimitReached") in {(n.type, n.reason) for n in notices(before, world.status())}
    assert cost(world)["actual"] == "1", "what was suspended costs nothing"
    world.edit(cost={**RATE, "limit": 2})
    world.settle()
    assert world.created[-1] == "tiny-train-2"
    assert condition(world, "Suspended") == ("False", "Resumed")
    assert world.status().restarts_count_towards_max == 0


def test_a_limit_holds_back_no_step_without_gpus() -> None:
    world = training(cost={**RATE, "limit": 1})
    world.pass_time(600)
    world.end(record={})
    world.settle()
    assert world.created[-1] == "tiny-evaluate-1", "the training was just done"


def test_a_limit_holds_back_every_step_with_gpus() -> None:
    one = {"limits": {"nvidia.com/gpu": 1}}
    world = training(cost={**RATE, "limit": 1}, stepResources={"evaluate": one})
    world.pass_time(600)
    world.end(record={})
    world.settle()
    assert world.created[-1] == "tiny-train-1"
    assert condition(world, "Suspended") == ("True", "CostLimitReached")


def test_a_limit_without_a_price_is_refused_with_the_way_out() -> None:
    world = World(run=manifest(resources=TWO, cost={"limit": 5}))
    world.settle()
    assert condition(world, "Stalled") == ("True", "InvalidSpec")
    assert "spec.cost.hourlyRate" in message(world)
    assert world.created == []


def test_a_limit_whose_price_is_taken_away_holds_back_the_next_attempt() -> None:
    world = training(cost={**RATE, "limit": 5})
    world.edit(cost={"limit": 5})
    world.settle()
    assert world.status().state == "Training"
    world.end(exit_code=75)
    world.settle()
    world.pass_time(1000)
    world.settle()
    assert condition(world, "Stalled") == ("True", "InvalidSpec")
    assert world.created[-1] == "tiny-train-1"


@pytest.mark.parametrize("refusing", [None, "", "false"])
def test_a_run_waits_for_its_approval_with_what_it_may_cost(refusing: str | None) -> None:
    spec = {"cost": {**RATE, "requireApproval": True, "limit": 20}, "activeDeadlineSeconds": 5000}
    world = World(run=manifest(resources=TWO, **spec))
    if refusing is not None:
        world.run["metadata"]["annotations"] = {"trainyard.dev/approved": refusing}
    world.settle()
    assert (world.status().state, condition(world, "Ready")) == ("Pending", ("False", "WaitingForApproval"))
    assert message(world) == (
        "waits for approval (2 GPUs at 3.6 EUR an hour each, at most 10 EUR by spec.activeDeadlineSeconds, spec.cost.limit is 20 EUR): "
        "trainyard approve tiny"
    )
    assert world.created == []
    assert [n.reason for n in notices(TrainingRunStatus(), world.status())] == ["WaitingForApproval"]
    world.run["metadata"]["annotations"] = {"trainyard.dev/approved": "by the lab's owner"}
    world.settle()
    assert world.created == ["tiny-prepare-1"]
    del world.run["metadata"]["annotations"]
    world.end(record={})
    world.settle()
    assert world.created[-1] == "tiny-train-1", "what has begun is asked no more"


def test_how_long_an_unapproved_run_takes_is_not_invented() -> None:
    world = World(run=manifest(resources=TWO, cost={"requireApproval": True}))
    world.settle()
    assert "for how long is not known" in message(world)
    assert cost(world) == {"gpuHours": "0"}


def test_an_attempt_that_the_runs_end_cuts_short_is_entered_as_ended() -> None:
    world = training(cost=RATE, activeDeadlineSeconds=600)
    world.pass_time(600)
    world.settle()
    assert world.status().state == "Failed"
    (attempt,) = world.status().steps[1].attempts  # type: ignore[index, misc]
    assert (attempt.state, attempt.reason, attempt.completion_time) == (
        "Stopped",
        "DeadlineExceeded",
        world.status().completion_time,
    )
    assert cost(world)["actual"] == "1.2"


def test_spot_nodes_save_the_difference_to_the_regular_rate() -> None:
    world = training(cost={**RATE, "regularHourlyRate": 10.8})
    world.pass_time(500)
    world.settle()
    assert (cost(world)["actual"], cost(world)["saved"]) == ("1", "2")


def test_what_is_taken_away_is_counted_apart_from_what_fails() -> None:
    world = training(backoffLimit=5)

    def again(**end: Any) -> None:
        world.pass_time(50)
        world.end(**end)
        world.settle()
        world.pass_time(400)
        world.settle()
        world.start_pod()
        world.settle()

    for _ in range(ATTEMPTS_KEPT):
        again(exit_code=75)
    again(exit_code=143)
    again(exit_code=1)
    world.remove_job("tiny-train-13")
    world.settle()
    status = world.status()
    assert (status.disruptions, status.restarts_count_towards_max) == (ATTEMPTS_KEPT + 2, 1)
    world.edit(suspend=True)
    world.settle()
    assert world.status().disruptions == ATTEMPTS_KEPT + 2, "a suspension is none"


@pytest.mark.parametrize(
    ("months", "told"),
    [
        ((100 * 3600 - 1, 40 * 3600 - 1), None),
        ((100 * 3600, 0), "lab has used 100 of its 100 GPU hours of 2026-01"),
        ((50 * 3600, 40 * 3600), "lab/agent-sre has used 40 of its 40 GPU hours of 2026-01"),
    ],
)
def test_a_training_waits_when_the_months_hours_are_used_up(
    monkeypatch: pytest.MonkeyPatch, months: tuple[int, int], told: str | None
) -> None:
    quotas = {"lab": 100.0, "lab/agent-sre": 40.0, "other": 0.0}
    monkeypatch.setattr(worlds, "POLICY", replace(worlds.POLICY, monthly_gpu_hours=quotas))
    world = World(run=manifest(resources=TWO, owner={"agent": "agent-sre"}), used=months)
    world.settle()
    world.end(record={})
    world.settle()
    assert (world.created[-1] == "tiny-train-1") == (told is None), "the data are prepared all the same"
    if told is not None:
        assert message(world).startswith(told)
        assert condition(world, "Ready") == ("False", "QuotaExceeded")
        world.used = (0, 0)
        world.settle()
        assert world.created[-1] == "tiny-train-1"


def test_hours_of_a_month_are_those_since_its_first_day() -> None:
    world = training(cost=RATE)
    world.pass_time(40 * 24 * 3600)
    world.end(record={})
    world.settle()
    status = world.status()
    both = used([("sre", status), ("", status)], agent="sre", now=world.now)
    assert (both.in_all, both.of_agent) == (2 * both.of_agent, 2 * 9 * 24 * 3600), "from 1 to 10 February, 2 GPUs"


# A thousand runs, reckoned twice


@dataclass
class Held:
    """What the cluster knows of one Job with GPUs."""

    gpus: int
    began: int | None = None
    ended: int | None = None
    noted_begin: bool = False
    """Whether the operator has written down that it began, as its Event says."""
    noted_end: int | None = None
    """The end as the operator has written it down: of the pod, or the look at which the Job was gone."""


@dataclass
class Life(World):
    """A world that keeps an account of its own, and whose operator has a clock that may be wrong."""

    skew: int = 0
    wrote: bool = False
    account: dict[str, Held] = field(default_factory=dict)

    def observe(self) -> Observed:
        return replace(super().observe(), now=self.now + timedelta(seconds=self.skew))

    def put_status(self, status: TrainingRunStatus) -> None:
        super().put_status(status)
        self.wrote = True

    def second(self, skew: int = 0) -> int:
        return int(self.now.timestamp()) + skew

    def look(self, dies_after: int | None = None) -> None:
        over, self.wrote = is_finished(self.status()), False
        self.reconcile(dies_after=dies_after)
        for name in self.jobs:
            if "-train-" in name:
                self.account.setdefault(name, Held(gpus=int(self._gpus(name))))
        if not self.wrote or over:
            return
        for name, one in self.account.items():
            if f"{name}-x" in self.pods and one.began is not None:
                one.noted_begin = True
                one.noted_end = one.noted_end or one.ended
            elif one.noted_begin and name not in self.jobs:
                one.noted_end = one.noted_end or self.second(self.skew)
            if one.noted_begin and one.noted_end is None and is_finished(self.status()):
                one.noted_end = self.second(self.skew)

    def _gpus(self, name: str) -> int:
        container = self.jobs[name]["spec"]["template"]["spec"]["containers"][0]
        return int(container["resources"]["limits"].get("nvidia.com/gpu", 0))

    def seconds(self) -> int:
        """From the account alone."""
        closed = (
            one.gpus * max(0, (one.noted_end or self.second(self.skew)) - one.began)
            for one in self.account.values()
            if one.noted_begin and one.began is not None
        )
        return sum(closed)

    def begin(self) -> None:
        job = self.live_job()
        if job is None or f"{job['metadata']['name']}-x" in self.pods or "deletionTimestamp" in job["metadata"]:
            return
        self.start_pod()
        if job["metadata"]["name"] in self.account:
            self.account[job["metadata"]["name"]].began = self.second()

    def stop(self, exit_code: int) -> None:
        job = self.live_job()
        if job is None or f"{job['metadata']['name']}-x" not in self.pods:
            return
        self.end(exit_code=exit_code, record={} if exit_code == 0 else None)
        if job["metadata"]["name"] in self.account:
            self.account[job["metadata"]["name"]].ended = self.second()


def live(seed: int) -> Life:
    """A run whose pods are evicted and killed, whose user suspends and edits it, and whose operator dies and has a wrong clock."""
    chance = random.Random(seed)
    rate = chance.choice([0.35, 2.0, 3.6])
    bounds: dict[str, Any] = {"hourlyRate": rate} | ({"limit": rate * 3} if chance.random() < 0.3 else {})
    world = Life(run=manifest(resources=TWO, backoffLimit=1000, cost=bounds, activeDeadlineSeconds=400_000))
    world.look()
    world.end(record={})
    for _ in range(chance.randint(10, 24)):
        match chance.randrange(10):
            case 0 | 1 | 2:
                world.begin()
            case 3 | 4:
                world.stop(chance.choice([0, 75, 75, 75, 137, 1]))
            case 5:
                world.skew = chance.choice([0, 0, -90_000, 90_000, 7, -7])
            case 6:
                world.edit(suspend=chance.random() < 0.4)
            case 7 if world.status().state == "Suspended":
                gpus = chance.choice([1, 2, 4])
                world.edit(resources={"limits": {"nvidia.com/gpu": gpus}}, suspend=False)
            case 8:
                world.collect()
            case _:
                pass
        world.pass_time(chance.choice([1, 30, 400, 4000]))
        world.look(dies_after=chance.randrange(4) if chance.random() < 0.25 else None)
    world.look()
    return world


def test_a_thousand_runs_cost_what_the_cluster_says_over_restarts_and_wrong_clocks() -> None:
    told = stopped = 0
    for seed in range(1000):
        world = live(seed)
        status = world.status()
        rate = Decimal(repr(world.run["spec"]["cost"]["hourlyRate"]))
        seconds = world.seconds()
        if not is_finished(status):
            assert spent(status.steps or (), until=world.observe().now) == seconds, f"seed {seed}"
        assert status.cost is not None
        assert status.cost.gpu_hours == written(Decimal(seconds) / 3600), f"seed {seed}"
        assert status.cost.actual == written(Decimal(seconds) * rate / 3600), f"seed {seed}"
        told += seconds > 0
        stopped += "spec.cost.limit" in (status.message or "")
    assert told > 500
    assert stopped > 20


def test_an_attempt_is_closed_also_when_the_look_that_began_the_next_one_died() -> None:
    world = training(cost=RATE)
    world.pass_time(100)
    world.end(exit_code=75)
    world.reconcile(dies_after=1)
    assert world.created[-1] == "tiny-train-2", "its Job is made, and the status does not say so"
    world.settle()
    (step,) = [s for s in world.status().steps or () if s.name == "train"]
    assert [(a.number, a.state) for a in step.attempts or ()] == [(1, "Failed"), (2, "Running")]
    assert cost(world)["actual"] == "0.2"


def test_what_attempts_have_cost_stays_when_they_go_out_of_the_status() -> None:
    world = training(cost=RATE, backoffLimit=100)
    for _ in range(ATTEMPTS_KEPT + 5):
        world.pass_time(50)
        world.end(exit_code=75)
        world.settle()
        world.pass_time(100)
        world.settle()
        world.start_pod()
        world.settle()
    (step,) = [s for s in world.status().steps or () if s.name == "train"]
    assert len(step.attempts or ()) == ATTEMPTS_KEPT
    assert cost(world)["actual"] == "1.5", "15 times 50 s of 2 GPUs"
