"""Asynchronous successive halving (Li et al., 2020): who may train beyond a rung. Pure.

A trial that reaches a rung is stopped there, unless it is among the best `1 / reductionFactor` of all that have reached it so far. One
that was stopped is gone on with as soon as it is among them, because enough worse ones have come. Who may go on is never taken
back. When nothing else is left to do, the best one of the highest rung goes on in any case, so that some trial trains to its end.
"""

from collections.abc import Callable, Iterable, Sequence

from trainyard.controller.sweeps.trial import Trial

Loss = Callable[[float], float]
"""Of a value: the lower the better."""


def promotable(trials: Iterable[Trial], rungs: Sequence[int], *, reduction: int, loss: Loss) -> list[Trial]:
    """Stopped trials that may go on: from the highest rung first, those that still train before others, then the best."""
    every = list(trials)
    found: list[Trial] = []
    for rung in reversed(rungs):
        there = [trial for trial in every if rung in trial.rungs]
        best = _ranked(there, rung, loss)[: len(there) // reduction]
        waiting = [trial for trial in best if _waits_at(trial, rung)]
        found += sorted(waiting, key=lambda trial: trial.at_rest)
    return found


def last_hope(trials: Iterable[Trial], rungs: Sequence[int], *, loss: Loss) -> Trial | None:
    """Whom to go on with when nobody runs, nobody is to come and nobody is promotable; None if somebody has got to the end."""
    every = list(trials)
    for rung in reversed(rungs):
        if any(trial.state == "Succeeded" or trial.promoted >= rung for trial in every):
            return None
        if waiting := [trial for trial in _ranked(every, rung, loss) if _waits_at(trial, rung)]:
            return waiting[0]
    return None


def _waits_at(trial: Trial, rung: int) -> bool:
    return not trial.over and trial.highest == rung and trial.promoted < rung


def _ranked(trials: Iterable[Trial], rung: int, loss: Loss) -> list[Trial]:
    """The best first; without those that have no value there."""
    measured = [(loss(value), trial.number, trial) for trial in trials if (value := trial.rungs.get(rung)) is not None]
    return [trial for _, _, trial in sorted(measured, key=lambda entry: entry[:2])]
