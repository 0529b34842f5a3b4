"""What early stopping costs and saves, over learning curves that are made up but shaped like real ones.

A curve falls from the same height as a power of the steps, to a floor and at a speed that depend on the learning rate and the batch;
what is measured on the way has noise. So the order at an early step is mostly, and not always, that at the end.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.controller.sweeps.world import RUN_SPEC, World, manifest

STEPS, EVERY = 270, 10
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
BATCHES = [4, 8, 16]
pytestmark = pytest.mark.slow

ASHA = {"asha": {"minimumSteps": 20, "reductionFactor": 4, "rungs": 2}}


def curves(seed: int) -> Callable[[Any, int], float]:
    """Loss at a step; another optimum for each seed."""
    best_rate = random.Random(f"optimum/{seed}").uniform(-4.0, -2.0)
    best_batch = random.Random(f"batch/{seed}").choice(BATCHES)

    def loss(values: Any, step: int) -> float:
        rate, batch = values["training.learningRate"], values["training.perDeviceTrainBatchSize"]
        off = math.log10(rate) - best_rate
        floor = 1.5 + 0.35 * min(off**2, 6.0) + 0.08 * abs(math.log2(batch / best_batch))
        speed = 0.55 + 0.05 * math.tanh(off)  # a higher rate is faster at first
        noise = random.Random(f"{seed}/{rate}/{batch}/{step}").gauss(0.0, 0.01)
        return floor + 5.0 * (1 + step) ** -speed + noise

    return loss


@dataclass(frozen=True)
class Outcome:
    """What a sweep has cost and found."""

    steps: int
    best: str
    value: float


def sweep(seed: int, *, early: bool, parallel: int = 3) -> Outcome:
    template = {"spec": {**RUN_SPEC, "training": {**RUN_SPEC["training"], "maxSteps": STEPS, "evalSteps": EVERY}}}
    order = random.Random(seed)  # trials come in another order each time
    parameters = [
        {"name": "training.learningRate", "choice": {"values": order.sample(RATES, len(RATES))}},
        {"name": "training.perDeviceTrainBatchSize", "choice": {"values": order.sample(BATCHES, len(BATCHES))}},
    ]
    spec = {"algorithm": "Grid", "numTrials": 27, "parallelTrials": parallel, "parameters": parameters}
    if early:
        spec["earlyStopping"] = ASHA
    world = World(
        manifest(template=template, **spec), curve=curves(seed), stride=15 if early else STEPS
    ).run_to_the_end()
    assert world.status.best is not None
    assert len(world.created) == 27
    return Outcome(world.steps, str(world.status.best.assignments), float(world.status.best.value))


@pytest.mark.parametrize("parallel", [1, 3])
def test_of_27_trials_early_stopping_takes_two_fifths_of_the_steps_and_finds_the_same_best(parallel: int) -> None:
    outcomes = [(sweep(seed, early=False), sweep(seed, early=True, parallel=parallel)) for seed in range(10)]
    shares = [stopped.steps / whole.steps for whole, stopped in outcomes]
    same = sum(whole.best == stopped.best for whole, stopped in outcomes)
    print(
        f"parallelTrials {parallel}: {min(shares):.1%} to {max(shares):.1%} of the steps, the same best in {same} of 10"
    )
    assert all(whole.steps == 27 * STEPS for whole, _ in outcomes)
    assert max(shares) <= 0.4
    assert same >= 9
