"""Metrics of runs that end, and of single models: what is told, for how long, and how many series that can be."""

from typing import Any

import pytest

from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import World, manifest, until_training
from tests.unit.controller.test_late_status import World as Nobody
from trainyard.api.manifest import parse_run
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.clock import SystemClock, rfc3339
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.metrics import Metrics
from trainyard.controller.model_metrics import METRICS_KEPT, RUNS_KEPT
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.reconcile import Reconciler

AGENT = {"agent": "agent-sre", "model": "agent-sre-functiongemma", "version": "v2"}
NAMING = {"owner": {"agent": "agent-sre"}, "versioning": {"name": "{agent}-functiongemma", "version": "v2"}}


def run(name: str = "alpha", *, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> RunRef:
    raw = manifest(**spec)
    raw["metadata"] |= {"name": name, "namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": created}
    return RunRef.of(raw, parse_run(raw))


def told(
    *,
    state: str = "Training",
    training: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    **fields: Any,
) -> TrainingRunStatus:
    def listed(metrics: dict[str, Any]) -> list[dict[str, str]]:
        return [{"name": name, "value": str(value)} for name, value in metrics.items()]

    status: dict[str, Any] = {"state": state, **fields}
    if training:
        status["trainerStatus"] = {"metrics": listed(training)}
    if evaluation:
        status["evaluation"] = {"metrics": listed(evaluation)}
    return TrainingRunStatus.model_validate(status)


def ended(state: str, *, seconds: int = 0) -> TrainingRunStatus:
    kind = "Complete" if state == "Succeeded" else "Failed"
    condition = {"type": kind, "status": "True", "reason": state, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    times = {
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}Z",
    }
    return told(state=state, conditions=[condition], **times)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"trainyard_{name}", labels)


def series(metrics: Metrics, *names: str) -> list[dict[str, str]]:
    return [s.labels for family in metrics.registry.collect() for s in family.samples if s.name in names]


PER_MODEL = (
    "trainyard_training_loss",
    "trainyard_validation_loss",
    "trainyard_gpu_utilization_percent",
    "trainyard_model_accuracy",
    "trainyard_model_metric",
    "trainyard_model_created_timestamp_seconds",
)


@pytest.mark.parametrize("result", ["Succeeded", "Failed", "Cancelled"])
def test_a_run_is_counted_once_when_it_ends_and_with_how_long_it_took(result: str) -> None:
    metrics = Metrics()
    assert value(metrics, "runs_ended_total", result=result) == 0, "there from the start, so that the first one is seen"
    running, over = told(), ended(result, seconds=90)
    for old, new in ((TrainingRunStatus(), running), (running, over), (over, over)):
        metrics.status_written("ns", "alpha", old, new, run())
    assert value(metrics, "runs_ended_total", result=result) == 1
    assert value(metrics, "run_duration_seconds_sum", result=result) == 90
    assert sum(value(metrics, "runs_ended_total", result=r) or 0 for r in ("Succeeded", "Failed", "Cancelled")) == 1


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        ({}, 0),
        ({"cpu": "4", "memory": "1Gi"}, 0),
        ({"nvidia.com/gpu": 2}, 2),
        ({"nvidia.com/mig-1g.10gb": 1, "rdma/hca": 4}, 1),
        ({"gpu.intel.com/i915": 1}, 1),
        ({"google.com/tpu": 8}, 8),
        ({"devices.kubevirt.io/input": 1}, 0),
    ],
)
def test_what_counts_as_a_gpu(limits: dict[str, Any], gpus: int) -> None:
    world = World(run=manifest(resources={"limits": limits}))
    until_training(world)
    steps = {step.name: step.attempts or [] for step in world.status().steps or ()}
    assert (steps["train"][0].gpus or 0) == gpus
    world.end(record={})
    world.settle()
    world.settle()
    steps = {step.name: step.attempts or [] for step in world.status().steps or ()}
    assert steps["evaluate"][0].gpus is None, "the evaluation gets none"


def test_gpus_are_held_from_the_pods_start_to_its_end() -> None:
    metrics = Metrics()
    one = run()
    times = {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T02:00:10Z"}
    started = {"podStartTime": "2026-01-01T02:00:00Z", "node": "arcanine"}

    def after(*attempts: dict[str, Any]) -> TrainingRunStatus:
        return told(steps=[{"name": "train", "state": "Running", "attempts": list(attempts)}])

    first = {"number": 1, "state": "Failed", "gpus": 6, **times, **started}
    never_placed = {"number": 2, "state": "Stopped", "gpus": 6, **times}
    metrics.status_written("ns", "alpha", TrainingRunStatus(), after(first), one)
    metrics.status_written("ns", "alpha", after(first), after(first, never_placed), one)
    assert value(metrics, "gpu_seconds_total", state="Failed") == 10 * 6
    assert value(metrics, "gpu_seconds_total", state="Stopped") == 0, "one that waited for two hours held nothing"
    assert value(metrics, "gpu_seconds_total", state="Succeeded") == 0


def test_what_attempts_have_cost_by_currency_of_which_there_are_few() -> None:
    metrics = Metrics()

    def ended_in(currency: str, name: str) -> None:
        times = {"startTime": "2026-01-01T00:00:00Z", "podStartTime": "2026-01-01T00:00:00Z"}
        attempt = {
            "number": 1,
            "state": "Succeeded",
            "gpus": 2,
            "node": "a",
            "completionTime": "2026-01-01T01:00:00Z",
            **times,
        }
        cost = {"gpuHours": "2", "hourlyRate": "1.5", "currency": currency, "actual": "3"}
        new = told(steps=[{"name": "train", "state": "Succeeded", "attempts": [attempt]}], cost=cost)
        metrics.status_written("ns", name, TrainingRunStatus(), new, run(name))

    for number in range(12):
        ended_in(f"AA{chr(65 + number)}", f"run-{number}")
    ended_in("AAA", "again")
    assert value(metrics, "gpu_cost_total", currency="AAA") == 6
    assert value(metrics, "gpu_cost_total", currency="other") == 4 * 3
    assert len(series(metrics, "trainyard_gpu_cost_total")) == 9


def test_the_ledger_notes_when_the_pod_began() -> None:
    world = World()
    until_training(world)
    (attempt,) = next(s for s in world.status().steps or () if s.name == "train").attempts or ()
    assert (attempt.node, attempt.pod_start_time) == ("forge", rfc3339(world.now))


def test_loss_and_accuracy_of_a_model_under_the_names_of_its_owner() -> None:
    metrics = Metrics()
    one = run(**NAMING)
    metrics.run_known(one, told(training={"loss": 2.5, "eval_loss": "nan", "gpu_utilization_percent": 97}))
    assert value(metrics, "training_loss", **AGENT) == 2.5
    assert str(value(metrics, "validation_loss", **AGENT)) == "nan"
    assert value(metrics, "gpu_utilization_percent", **AGENT) == 97
    assert value(metrics, "model_accuracy", **AGENT) is None, "nothing has been evaluated"
    done = told(
        state="Succeeded",
        training={"loss": 2.4, "gpu_utilization_percent": 97},
        evaluation={"exactMatch": 0.8, "latencyP50Seconds": 0.2, "perplexity": "not known"},
    )
    metrics.status_written("ns", "alpha", TrainingRunStatus(), done, one)
    assert value(metrics, "training_loss", **AGENT) == 2.4
    assert value(metrics, "model_accuracy", **AGENT) == 0.8
    assert value(metrics, "model_created_timestamp_seconds", **AGENT) == 1767225600
    assert value(metrics, "model_metric", **AGENT, metric="latencyP50Seconds") == 0.2
    assert value(metrics, "gpu_utilization_percent", **AGENT) is None, "a training that is over uses no GPU"
    assert len(series(metrics, "trainyard_model_metric")) == 2


def test_without_names_of_its_own_a_model_is_called_as_in_its_exports() -> None:
    metrics = Metrics()
    metrics.run_known(
        run("alpha", owner={}, model={"storageUri": "hf://org/Tiny"}, training={"method": "CPT", "maxSteps": 1}),
        told(training={"loss": 1}),
    )
    (labels,) = series(metrics, "trainyard_training_loss")
    assert labels == {"agent": "alpha", "model": "alpha-tiny-20260101-uid-alph", "version": "v20260101-uid-alph"}


def test_of_two_runs_with_one_name_the_newer_one_is_told_whoever_is_looked_at_last() -> None:
    old, new = (
        run("old", created="2026-01-01T00:00:00Z", **NAMING),
        run("new", created="2026-01-02T00:00:00Z", **NAMING),
    )
    metrics = Metrics()
    metrics.run_known(new, told(training={"loss": 1.0}))
    metrics.run_known(old, told(training={"loss": 9.0}, evaluation={"exactMatch": 0.9}))
    assert value(metrics, "training_loss", **AGENT) == 1.0
    assert value(metrics, "model_accuracy", **AGENT) == 0.9, "the newer one has not been evaluated yet"
    metrics.run_gone("ns", "new")
    assert value(metrics, "training_loss", **AGENT) == 9.0
    metrics.only_runs(set())
    assert series(metrics, *PER_MODEL) == [], "a run that is gone leaves nothing"


def test_a_run_that_is_made_again_under_its_name_begins_with_nothing() -> None:
    metrics = Metrics()
    metrics.run_known(run(**NAMING), told(training={"loss": 1.0}))
    metrics.run_known(run(created="2026-01-03T00:00:00Z", **NAMING), told())
    assert series(metrics, *PER_MODEL) == []


def test_series_are_bounded_whatever_runs_say() -> None:
    metrics = Metrics()
    many = {f"metric-{n}": n for n in range(60)}
    for number in range(RUNS_KEPT + 50):
        day = f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z"
        metrics.run_known(run(f"run-{number}", created=day), told(training={"loss": number}, evaluation=many))
    assert len(series(metrics, "trainyard_training_loss")) == RUNS_KEPT
    assert len(series(metrics, "trainyard_model_metric")) == RUNS_KEPT * METRICS_KEPT
    told_of = {labels["agent"] for labels in series(metrics, "trainyard_training_loss")}
    assert "run-49" not in told_of
    assert {"run-50", f"run-{RUNS_KEPT + 49}"} <= told_of, "the newest are kept"


def test_names_of_metrics_are_cleaned_and_cut() -> None:
    metrics = Metrics()
    metrics.run_known(run(), told(evaluation={"a\x1b[31m\nb": 1, "x" * 200: 2}))
    names = [labels["metric"] for labels in series(metrics, "trainyard_model_metric")]
    assert names[0] == "a b"
    assert len(names[1]) == 128


def test_single_models_can_be_left_out() -> None:
    metrics = Metrics(per_model=False)
    metrics.status_written(
        "ns", "alpha", TrainingRunStatus(), told(training={"loss": 1}, evaluation={"exactMatch": 1}), run()
    )
    assert series(metrics, *PER_MODEL) == []


async def test_numbers_of_a_run_that_is_over_come_back_with_the_next_operator(kube: FakeKube, cluster: Cluster) -> None:
    """Nothing is written of it any more: it is enough that it is looked at."""
    over = {**ended("Succeeded").model_dump(by_alias=True, exclude_none=True), "observedGeneration": 1}
    over["trainerStatus"] = {"metrics": [{"name": "loss", "value": "3.5"}]}
    kube.put("trainingruns", {**manifest(**NAMING), "status": over})
    metrics, world = Metrics(), Nobody()
    looking = Reconciler(
        cluster=cluster,
        policy=Policy(Defaults(trainer_image="trainer:test")),
        progress=world,
        pace=Pace(active=lambda: 0, clock=SystemClock(), interval_seconds=8, writes_per_second=25),
        tokens=world,
        events=world,
        watcher=metrics,
        clock=SystemClock(),
    )
    await looking.reconcile(("lab", "tiny"))
    assert value(metrics, "training_loss", **AGENT) == 3.5
    assert value(metrics, "runs_ended_total", result="Succeeded") == 0, "it ended before this operator began"
    kube.remove("trainingruns", "lab", "tiny")
    await looking.reconcile(("lab", "tiny"))
    assert series(metrics, *PER_MODEL) == []
