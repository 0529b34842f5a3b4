"""Which values a trial gets: a function of spec, seed, the trial's number and what has come of earlier trials. Pure.

Of Grid, Random and Sobol the number alone decides. TPE learns from the trials up to `parallelTrials` before, all of them and no others:
so it waits for one of these that is late, and whatever else happened to have ended by then changes nothing. An operator that
ends at any moment, and one that is slow, propose the same.
"""

import math
import random
from collections.abc import Mapping, Sequence

from trainyard.api.sweep.space import Assignments, combination, fits, value_at
from trainyard.api.sweep.trainingsweep import Parameter, TrainingSweepSpec
from trainyard.controller.sweeps import sobol, tpe
from trainyard.controller.sweeps.trial import Trial


def propose(spec: TrainingSweepSpec, number: int, trials: Mapping[int, Trial]) -> Assignments | None:
    """The values of the trial with this number (from 1); None while an earlier one has to be waited for.

    `trials` are those that there are, by number, with the rungs at which they have been compared.
    """
    match spec.algorithm:
        case "Grid":
            return combination(spec.parameters, number - 1)
        case "Random":
            chance = random.Random(f"random/{spec.seed}/{number}")
            return _at(spec.parameters, [chance.random() for _ in spec.parameters])
        case "TPE" if number > tpe.STARTUP:
            return _learned(spec, number, trials)
        case _:  # Sobol, and what TPE begins with
            return _at(spec.parameters, sobol.point(number - 1, len(spec.parameters), seed=spec.seed))


def _at(parameters: Sequence[Parameter], units: Sequence[float]) -> Assignments:
    return {p.name: value_at(p, unit) for p, unit in zip(parameters, units, strict=True)}


def _learned(spec: TrainingSweepSpec, number: int, trials: Mapping[int, Trial]) -> Assignments | None:
    told = []
    for earlier in range(1, number - spec.parallel_trials + 1):
        trial = trials.get(earlier)
        if trial is None or not trial.told:
            return None
        if trial.state != "Cancelled" and all(fits(p, trial.assignments.get(p.name)) for p in spec.parameters):
            told.append(tpe.Told(trial.assignments, _loss(spec, trial)))
    return tpe.suggest(spec.parameters, told, seed=f"{spec.seed}/{number}")


def _loss(spec: TrainingSweepSpec, trial: Trial) -> float:
    """With earlyStopping the value at the first rung, the only step at which all trials can be compared."""
    value = trial.final if spec.early_stopping is None else trial.first_value
    if value is None:
        return math.inf
    return value if spec.objective.direction == "Minimize" else -value
