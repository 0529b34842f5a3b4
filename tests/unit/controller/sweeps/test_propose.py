"""Proposals: in their bounds, the same for the same, and with TPE better than chance on functions that are known."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller.sweeps.world import RATE, manifest, reference
from trainyard.api.sweep.trainingsweep import TrainingSweepSpec
from trainyard.controller.sweeps.propose import propose
from trainyard.controller.sweeps.tpe import STARTUP
from trainyard.controller.sweeps.trial import Trial

PARAMETERS: list[dict[str, Any]] = [
    RATE,
    {"name": "training.warmupSteps", "int": {"min": 0, "max": 20}},
    {"name": "training.maxSteps", "int": {"min": 1, "max": 4096, "log": True}},
    {"name": "training.weightDecay", "double": {"min": 0, "max": 1}},
    {"name": "training.lrSchedulerType", "choice": {"values": ["linear", "cosine", "constant"]}},
    {"name": "training.packing", "choice": {"values": [True, False]}},
]
Function = Callable[[dict[str, Any]], float]


def spec_of(**spec: Any) -> TrainingSweepSpec:
    return reference(manifest(**{"parameters": PARAMETERS, "numTrials": 500, **spec})).spec


def play(spec: TrainingSweepSpec, function: Function, count: int) -> dict[int, Trial]:
    """So many trials, each of which has ended when the next one is proposed."""
    trials: dict[int, Trial] = {}
    for number in range(1, count + 1):
        values = propose(spec, number, trials)
        assert values is not None
        trials[number] = Trial(number, f"tune-{number}", values, state="Succeeded", final=function(values))
    return trials


def smooth(values: dict[str, Any]) -> float:
    """Best at a rate of 2e-3, a warm-up of 5, 100 steps, no decay, cosine, packed."""
    return (
        (math.log10(values["training.learningRate"]) + 2.7) ** 2
        + ((values["training.warmupSteps"] - 5) / 10) ** 2
        + (math.log10(values["training.maxSteps"]) - 2) ** 2
        + values["training.weightDecay"]
        + {"linear": 0.5, "cosine": 0.0, "constant": 1.0}[values["training.lrSchedulerType"]]
        + (0.0 if values["training.packing"] else 0.3)
    )


@pytest.mark.parametrize("algorithm", ["Random", "Sobol", "TPE"])
def test_every_value_is_in_its_bounds_and_of_its_type(algorithm: str) -> None:
    for trial in play(spec_of(algorithm=algorithm), smooth, 60).values():
        values = trial.assignments
        assert 1e-5 <= values["training.learningRate"] <= 1e-1
        assert isinstance(values["training.warmupSteps"], int)
        assert 0 <= values["training.warmupSteps"] <= 20
        assert isinstance(values["training.maxSteps"], int)
        assert 1 <= values["training.maxSteps"] <= 4096
        assert 0 <= values["training.weightDecay"] <= 1
        assert values["training.lrSchedulerType"] in ("linear", "cosine", "constant")
        assert isinstance(values["training.packing"], bool)


@pytest.mark.parametrize("algorithm", ["Random", "Sobol"])
def test_a_logarithmic_parameter_is_as_often_below_its_middle_as_above(algorithm: str) -> None:
    spec = spec_of(algorithm=algorithm)
    rates = [(propose(spec, n, {}) or {})["training.learningRate"] for n in range(1, 257)]
    assert 100 <= sum(rate < 1e-3 for rate in rates) <= 156


def test_both_ends_of_whole_numbers_are_as_likely_as_the_others() -> None:
    spec = spec_of(algorithm="Random", parameters=[{"name": "training.warmupSteps", "int": {"min": 0, "max": 3}}])
    drawn = [(propose(spec, n, {}) or {})["training.warmupSteps"] for n in range(1, 401)]
    assert all(70 <= drawn.count(value) <= 130 for value in range(4))


@pytest.mark.parametrize("algorithm", ["Random", "Sobol", "TPE"])
def test_seed_and_number_decide(algorithm: str) -> None:
    trials = play(spec_of(algorithm=algorithm), smooth, 15)
    assert propose(spec_of(algorithm=algorithm), 16, trials) == propose(spec_of(algorithm=algorithm), 16, trials)
    other = spec_of(algorithm=algorithm, seed=7)
    assert propose(other, 16, trials) != propose(spec_of(algorithm=algorithm), 16, trials)


def branin(values: dict[str, Any]) -> float:
    """The usual test function; its least is 0.397887."""
    x, y = values["training.weightDecay"] * 15 - 5, values["training.extraArgs.y"] * 15
    a = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def mixed(**spec: Any) -> TrainingSweepSpec:
    return spec_of(**spec)


def plane(**spec: Any) -> TrainingSweepSpec:
    unit = {"min": 0, "max": 1}
    axes = [{"name": name, "double": unit} for name in ("training.weightDecay", "training.extraArgs.y")]
    return spec_of(parameters=axes, **spec)


@pytest.mark.parametrize(("space", "function"), [(mixed, smooth), (plane, branin)], ids=["mixed", "branin"])
def test_tpe_finds_better_values_than_chance_does(space: Callable[..., TrainingSweepSpec], function: Function) -> None:
    best: dict[str, list[float]] = {}
    for algorithm in ("TPE", "Random"):
        for seed in range(12):
            trials = play(space(algorithm=algorithm, seed=seed), function, 50)
            best.setdefault(algorithm, []).append(min(t.final or 0.0 for t in trials.values()))
    wins = sum(ours < theirs for ours, theirs in zip(best["TPE"], best["Random"], strict=True))
    assert wins >= 8, best
    assert median(best["TPE"]) < 0.75 * median(best["Random"])


def test_tpe_keeps_away_from_where_trials_fail() -> None:
    spec = spec_of(algorithm="TPE", parameters=[RATE])
    trials: dict[int, Trial] = {}
    for number in range(1, 41):
        values = propose(spec, number, trials) or {}
        diverges = values["training.learningRate"] > 1e-3
        trials[number] = Trial(
            number, "t", values, state="Failed" if diverges else "Succeeded", final=None if diverges else 1.0
        )
    later = [trials[number].state for number in range(STARTUP + 5, 41)]
    assert later.count("Failed") <= len(later) / 4


def test_tpe_goes_on_where_all_have_failed() -> None:
    spec = spec_of(algorithm="TPE")
    trials = {n: Trial(n, "t", propose(spec, n, {}) or {}, state="Failed") for n in range(1, STARTUP + 1)}
    assert propose(spec, STARTUP + 1, trials) is not None


def test_maximize_is_minimize_of_the_negative() -> None:
    up = {"metric": "eval_loss", "direction": "Maximize"}
    least = play(spec_of(algorithm="TPE"), smooth, 30)
    most = play(spec_of(algorithm="TPE", objective=up), lambda values: -smooth(values), 30)
    assert [t.assignments for t in least.values()] == [t.assignments for t in most.values()]


def test_tpe_waits_for_the_trials_that_it_learns_from_and_for_no_others() -> None:
    spec = spec_of(algorithm="TPE", parallelTrials=3)
    trials = play(spec_of(algorithm="Sobol"), smooth, 14)
    del trials[11]
    assert propose(spec, 13, trials) is not None  # it learns from 1 to 10
    assert propose(spec, 14, trials) is None
    late = {**trials, 11: Trial(11, "t", trials[12].assignments)}
    assert propose(spec, 14, late) is None


@given(ended=st.sets(st.integers(11, 30)), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_what_else_has_ended_by_then_changes_no_proposal(ended: set[int], seed: int) -> None:
    spec = spec_of(algorithm="TPE", parallelTrials=4, seed=seed)
    first = play(spec_of(algorithm="Sobol", seed=seed), smooth, 30)
    known = {n: t for n, t in first.items() if n <= 12}
    more = {**known, **{n: first[n] for n in ended if n > 12}}
    assert propose(spec, 16, known) == propose(spec, 16, more)
