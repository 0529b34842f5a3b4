"""What follows from the spec alone is worked out once a look, however often it is asked for."""

import sys
from collections import Counter
from typing import Any

import pytest

from tests.unit.controller.runs import world as worlds
from tests.unit.controller.runs.world import World, manifest, progress
from trainyard.api.run import trainingrun

FIVE = [{"name": f"p{number}", "training": {"maxSteps": 10 + number}} for number in range(5)]


def five_phases() -> World:
    run = manifest(model={"storageUri": "hf://org/base"}, training={"method": "CPT"}, phases=FIVE)
    world = World(run=run)
    world.settle()
    world.end(record={})
    world.settle()
    world.start_pod()
    world.progress = progress(world, step=3).model_copy(update={"step": "train-p0"})
    return world


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    """How often a phase was resolved, and how often its training was put together, wherever that was called."""
    counted: dict[str, Counter[str]] = {"resolve": Counter(), "overridden": Counter()}
    originals = {name: getattr(trainingrun, name) for name in counted}

    def resolve(spec: Any, name: str, **options: Any) -> Any:
        counted["resolve"][name] += 1
        return originals["resolve"](spec, name, **options)

    def overridden(training: Any, overrides: Any) -> Any:
        counted["overridden"][str(overrides.max_steps)] += 1
        return originals["overridden"](training, overrides)

    for module in [m for n, m in sys.modules.items() if n.startswith("trainyard.")]:
        for name, counting in (("resolve", resolve), ("overridden", overridden)):
            if getattr(module, name, None) is originals[name]:
                monkeypatch.setattr(module, name, counting)
    return counted


def test_a_look_at_a_run_of_five_phases_resolves_each_of_them_once(read: dict[str, Counter[str]]) -> None:
    world = five_phases()
    worlds.parsed_run.cache_clear()
    for counter in read.values():
        counter.clear()
    world.decide()
    assert read["resolve"] == {f"p{number}": 1 for number in range(5)}, "by the rules that the spec is checked against"
    assert set(read["overridden"].values()) == {2}, "once by those rules, once by the planner"
    read["resolve"].clear()
    world.decide()
    assert read["resolve"] == {}, "the planner by itself"


def test_what_phases_train_with_is_what_resolving_them_would_say() -> None:
    run = five_phases().observe().run
    for name, training in run.trainings.items():
        assert training == trainingrun.resolve(run.spec, name).training


@pytest.mark.parametrize(
    ("wanted", "evaluates"), [(["held-out", "all"], False), (["all", "held-out"], True), (["held-out"], True)]
)
def test_whether_there_is_an_evaluation_depends_on_the_data_of_the_last_phase(
    wanted: list[str], evaluates: bool
) -> None:
    datasets = [
        {"name": "all", "inline": {"text": "hello"}},
        {"name": "held-out", "inline": {"text": "hello"}, "split": {"eval": 0.1}},
    ]
    run = manifest(
        model={"storageUri": "hf://org/base"},
        training={"method": "CPT", "maxSteps": 5},
        datasets=datasets,
        phases=[{"name": name, "datasets": [name]} for name in wanted],
    )
    steps = [step.name for step in World(run=run).observe().run.steps]
    assert steps == ["prepare", *(f"train-{name}" for name in wanted), *(["evaluate"] if evaluates else [])]


def test_which_steps_follow_is_told_at_any_distance() -> None:
    run = five_phases().observe().run
    assert run.followers["train-p3"] == {"train-p4", "evaluate"}
    assert run.followers["evaluate"] == frozenset()
    assert not run.may_work_beside("train-p0", "train-p4")
    assert not run.may_work_beside("train-p0", "train-p0")
    assert not run.may_work_beside("unknown", "train-p0")
