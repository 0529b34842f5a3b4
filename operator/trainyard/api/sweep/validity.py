"""What the API server's schema cannot check: where parameters lead, and the runs that their values make. Pure."""

from collections.abc import Iterator
from typing import Any

from trainyard.api import API_VERSION
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.steps import STEP_EVALUATE
from trainyard.api.sweep.children import SweepRef, rungs_of, trial_spec
from trainyard.api.sweep.space import Assignments, grid_size, grid_values, number_of
from trainyard.api.sweep.trainingsweep import EVALUATION_PREFIX, TRIALS_LIMIT, Parameter


def faults(sweep: SweepRef) -> list[str]:
    """Everything that is wrong, one sentence each, beginning with the field."""
    found = list(_parameters(sweep)) or list(_grid(sweep))
    return found or [*_runs(sweep), *_metric(sweep)]


def _parameters(sweep: SweepRef) -> Iterator[str]:
    seen: set[str] = set()
    for index, parameter in enumerate(sweep.spec.parameters):
        where = f"spec.parameters[{index}]"
        if parameter.name in seen:
            yield f"{where}.name: {parameter.name} stands twice; keep one of them"
        seen.add(parameter.name)
        for value in parameter.choice.values if parameter.choice else ():
            if not isinstance(value, str | int | float | bool):
                yield f"{where}.choice.values: {value!r} is not allowed: must be a text, a number, true or false"
                return
        try:
            trial_spec(sweep, {parameter.name: _edges(parameter)[0]})
        except ValueError as error:
            yield f"{where}.name: {parameter.name} leads nowhere: {error}"


def _grid(sweep: SweepRef) -> Iterator[str]:
    if sweep.spec.algorithm != "Grid":
        return
    for index, parameter in enumerate(sweep.spec.parameters):
        if parameter.double is not None and parameter.double.points is None:
            try:
                grid_values(parameter)
            except ValueError as error:
                yield f"spec.parameters[{index}]: {error}"
                return
    size, asked = grid_size(sweep.spec.parameters), sweep.spec.num_trials
    if asked is not None and asked > size:
        yield f"spec.numTrials: {asked} is not allowed: the grid has {size} combinations"
    if asked is None and size > TRIALS_LIMIT:
        yield (
            f"spec.parameters: the grid has {size} combinations, more than {TRIALS_LIMIT}: give fewer points, set numTrials, or take "
            "another algorithm"
        )


def _edges(parameter: Parameter) -> list[Any]:
    """The values of which one is wrong if any is: the bounds, or all of a choice."""
    bounds = number_of(parameter)
    return list(parameter.choice.values) if parameter.choice else [bounds.min, bounds.max] if bounds else []


def _runs(sweep: SweepRef) -> Iterator[str]:
    """Each parameter's extreme values by themselves. Values that break a rule only together fail their trial, and no other."""
    for index, parameter in enumerate(sweep.spec.parameters):
        for value in _edges(parameter):
            for fault in _faults(sweep, {parameter.name: value}):
                yield f"spec.parameters[{index}] ({parameter.name} = {value}): {fault}"


def _faults(sweep: SweepRef, assignments: Assignments) -> list[str]:
    spec = trial_spec(sweep, assignments)
    manifest = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": "run"}, "spec": spec}
    try:
        parse_run(manifest)
    except InvalidManifest as invalid:
        return [str(fault) for fault in invalid.faults]
    return []


def _metric(sweep: SweepRef) -> Iterator[str]:
    """What is known early of a metric that no trial would ever have."""
    run, metric = sweep.spec.template.spec, sweep.spec.objective.metric
    if run.command:
        return
    if metric.startswith(EVALUATION_PREFIX) and STEP_EVALUATE not in run.all_steps():
        yield f"spec.objective.metric: {metric} is measured by the evaluation, which template.spec does not ask for"
    if metric.startswith("eval_") and (run.training is None or run.training.eval_steps is None):
        yield (
            f"spec.objective.metric: {metric} is measured every training.evalSteps: set these in template.spec, or take eval/"
            f"{metric.removeprefix('eval_')}"
        )
    else:
        yield from _rungs(sweep, run, metric)


def _rungs(sweep: SweepRef, run: TrainingRunSpec, metric: str) -> Iterator[str]:
    rungs, training = rungs_of(sweep.spec), run.training
    if not rungs or training is None:
        return
    every = training.eval_steps if metric.startswith("eval_") else training.logging_steps
    name = "evalSteps" if metric.startswith("eval_") else "loggingSteps"
    if every is not None and every > rungs[0]:
        yield (
            f"spec.earlyStopping.asha.minimumSteps: at the first rung, step {rungs[0]}, there is no {metric} yet: training.{name} is "
            f"{every}; lower that, or raise minimumSteps"
        )
    if training.max_steps is not None and rungs[-1] >= training.max_steps:
        yield (
            f"spec.earlyStopping.asha.rungs: the last rung, step {rungs[-1]}, does not come before the end of the training, step "
            f"{training.max_steps}: lower rungs or minimumSteps, or raise training.maxSteps"
        )
