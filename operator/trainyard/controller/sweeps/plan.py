"""The decision: from what is there to what is to be done. Pure.

Nothing is remembered but the trials' runs. What a look decides about a trial (the values at rungs, whether it may go on, whether it is
suspended) goes onto its run in one write, and a new trial is one create under a name that follows from its number. So whatever
moment the operator ends at, the next look finds each decision either made or not, and makes the same ones.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from trainyard.api.manifest import parse_run
from trainyard.api.sweep.children import rungs_of, trial_name
from trainyard.api.sweep.status import SweepReason, SweepState
from trainyard.api.sweep.trainingsweep import PROMOTED_ANNOTATION, RUNGS_ANNOTATION
from trainyard.controller.sweeps import asha
from trainyard.controller.sweeps.children import build_child
from trainyard.controller.sweeps.observed import Adjust, Create, Observed, Plan
from trainyard.controller.sweeps.propose import propose
from trainyard.controller.sweeps.status import Standing, notices, read_texts, stand, summarise
from trainyard.controller.sweeps.trial import MESSAGE_LENGTH, Trial

_ENDED = (SweepState.SUCCEEDED.value, SweepState.FAILED.value)


@dataclass
class _Draft:
    """A plan in the making. `trials` is how they stand once the actions are done."""

    seen: Observed
    trials: dict[int, Trial]
    creates: list[Create] = field(default_factory=list)

    def loss(self, value: float) -> float:
        return value if self.seen.sweep.spec.objective.direction == "Minimize" else -value

    def drop_new(self) -> None:
        """The sweep ends here: what was about to be made is not."""
        for create in self.creates:
            del self.trials[create.number]
        self.creates.clear()

    def occupied(self) -> int:
        """Trials that train, are about to, or have not gone yet after they were stopped."""
        return sum(not t.over and (t.may_run or not t.at_rest) for t in self.trials.values())


def plan(seen: Observed) -> Plan:
    """Decide."""
    draft = _Draft(seen, {**remembered(seen), **seen.trials})
    if seen.faults:
        standing = Standing(SweepState.INVALID, SweepReason.INVALID_SPEC, "; ".join(seen.faults)[:30000])
        return _finish(draft, standing, hold=None)
    for number, why in seen.refused.items():
        draft.trials[number] = _stillborn(seen, number, why)
    ending = _verdict(draft)
    if ending is None and seen.sweep.spec.suspend:
        ending = _exhausted(draft) if seen.status.state == SweepState.SUCCEEDED.value else None
        if ending is None:
            return _finish(draft, _suspended(draft), hold=True)
    elif ending is None:
        _go_on(draft)
        ending = _verdict(draft) or _exhausted(draft)
        if ending is not None:
            draft.drop_new()
    if ending is None:
        return _finish(draft, _under_way(draft), hold=False)
    # Once the end has been told, stopped trials are left to people: one may go on with them.
    told = seen.status.state in _ENDED and seen.status.state == ending.state.value
    return _finish(draft, ending, hold=None if told else True)


def _go_on(draft: _Draft) -> None:
    """Use the places that are free: first for trials that may train beyond their rung, then for new ones."""
    spec = draft.seen.sweep.spec
    rungs = rungs_of(spec)
    if spec.early_stopping is not None:
        reduction = spec.early_stopping.asha.reduction_factor
        # Those that still train keep their place, so they come first.
        for trial in asha.promotable(draft.trials.values(), rungs, reduction=reduction, loss=draft.loss):
            _promote(draft, trial)
    _make_new(draft)
    idle = draft.occupied() == 0 and len(draft.trials) >= draft.seen.sweep.total
    if idle and (hope := asha.last_hope(draft.trials.values(), rungs, loss=draft.loss)) is not None:
        _promote(draft, hope)


def _promote(draft: _Draft, trial: Trial) -> None:
    if not trial.at_rest or draft.occupied() < draft.seen.sweep.spec.parallel_trials:
        draft.trials[trial.number] = replace(trial, promoted=trial.highest)


def _make_new(draft: _Draft) -> None:
    """The missing numbers, from the lowest: those to come, and one whose run somebody has deleted."""
    seen = draft.seen
    for number in range(1, seen.sweep.total + 1):
        if draft.occupied() >= seen.sweep.spec.parallel_trials or _too_many_failed(draft):
            return
        if number in draft.trials:
            continue
        assignments = propose(seen.sweep.spec, number, draft.trials)
        if assignments is None:
            return
        try:
            body = build_child(seen.sweep, number, assignments)
            parse_run({**body, "metadata": {"name": body["metadata"]["name"]}})
        except ValueError as wrong:
            draft.trials[number] = replace(_stillborn(seen, number, str(wrong)), assignments=assignments)
            continue
        draft.creates.append(Create(number, body))
        draft.trials[number] = Trial(number, body["metadata"]["name"], assignments)


def _stillborn(seen: Observed, number: int, why: str) -> Trial:
    """A trial whose run cannot be made: these values together break a rule."""
    return Trial(number, trial_name(seen.sweep.name, number), state="Failed", message=why[:MESSAGE_LENGTH])


def remembered(seen: Observed) -> dict[int, Trial]:
    """Trials whose runs were deleted after a good end. Before it, and after a bad one, a deleted run is made again."""
    done = seen.status.state == SweepState.SUCCEEDED.value
    return {
        entry.number: Trial(
            number=entry.number,
            name=entry.run,
            assignments=read_texts(seen.sweep.spec.parameters, entry.assignments or {}),
            state="Cancelled" if entry.state in ("Running", "Stopped") else entry.state,
            final=float(entry.value) if entry.value is not None and entry.state == "Succeeded" else None,
            message=entry.message or "",
            gone=True,
        )
        for entry in seen.status.trials or ()
        if (done or entry.gone) and entry.number not in seen.trials
    }


# How it stands


def _too_many_failed(draft: _Draft) -> bool:
    failed = sum(trial.state == "Failed" for trial in draft.trials.values())
    return failed > draft.seen.sweep.spec.max_failed_trials


def _verdict(draft: _Draft) -> Standing | None:
    """What ends a sweep before its trials are used up."""
    spec = draft.seen.sweep.spec
    if _too_many_failed(draft):
        failed = [trial for trial in draft.trials.values() if trial.state == "Failed"]
        last = max(failed, key=lambda trial: trial.number)
        told = (
            f"{len(failed)} trials have failed, more than maxFailedTrials ({spec.max_failed_trials}); the last one, {last.name}: "
            f"{last.message or 'see its run'}. Raise maxFailedTrials to go on; a trial whose run is deleted is made again"
        )
        return Standing(SweepState.FAILED, SweepReason.TOO_MANY_FAILED, told)
    best = _best(draft)
    goal = spec.objective.goal
    if best is not None and best.final is not None and goal is not None and draft.loss(best.final) <= draft.loss(goal):
        told = f"{best.name} has reached the goal: {spec.objective.metric} {best.final:g}, {goal:g} was asked for"
        return Standing(SweepState.SUCCEEDED, SweepReason.GOAL_REACHED, told)
    return None


def _exhausted(draft: _Draft) -> Standing | None:
    """The end after all trials."""
    sweep = draft.seen.sweep
    if len(draft.trials) < sweep.total or draft.occupied():
        return None
    best = _best(draft)
    if best is None:
        told = f"none of {len(draft.trials)} trials has a {sweep.spec.objective.metric}: see their messages in status.trials"
        return Standing(SweepState.FAILED, SweepReason.NO_RESULT, told)
    told = f"best of {len(draft.trials)} trials is {best.name}: {sweep.spec.objective.metric} {best.final:g}"
    return Standing(SweepState.SUCCEEDED, SweepReason.COMPLETED, told)


def _best(draft: _Draft) -> Trial | None:
    ended = [(draft.loss(t.final), t.number, t) for t in draft.trials.values() if t.final is not None]
    return min(ended, key=lambda entry: entry[:2])[2] if ended else None


def _suspended(draft: _Draft) -> Standing:
    still = sum(not t.over and not t.at_rest for t in draft.trials.values())
    told = (
        f"suspended; {still} trials write their checkpoints"
        if still
        else "suspended; it goes on when spec.suspend is false"
    )
    return Standing(SweepState.SUSPENDED, SweepReason.SUSPENDED, told)


def _under_way(draft: _Draft) -> Standing:
    told = f"{draft.occupied()} of {draft.seen.sweep.total} trials under way"
    return Standing(SweepState.RUNNING, SweepReason.RUNNING, told)


def _finish(draft: _Draft, standing: Standing, *, hold: bool | None) -> Plan:
    """`hold`: whether all trials are to be suspended; None leaves every run as it is."""
    seen = draft.seen
    actions: list[Create | Adjust] = []
    if hold is not None:
        actions += [a for t in draft.trials.values() if (a := _adjustment(seen, t, hold=hold)) is not None]
        actions += draft.creates
    status = stand(
        summarise(seen, draft.trials, _best(draft)),
        standing,
        suspended=seen.sweep.spec.suspend,
        generation=seen.generation,
        now=seen.now,
    )
    return Plan(status, tuple(actions), tuple(notices(seen.status, status)))


def _adjustment(seen: Observed, trial: Trial, *, hold: bool) -> Adjust | None:
    """The write that brings a trial's run to what was decided about it, if it is not there."""
    before = seen.trials.get(trial.number)
    if before is None:
        return None
    patch: dict[str, Any] = {}
    notes: dict[str, str] = {}
    if trial.rungs.keys() - seen.noted.get(trial.number, frozenset()):
        notes[RUNGS_ANNOTATION] = json.dumps({str(rung): trial.rungs[rung] for rung in sorted(trial.rungs)})
    if trial.promoted != before.promoted:
        notes[PROMOTED_ANNOTATION] = str(trial.promoted)
    if notes:
        patch["metadata"] = {"annotations": notes}
    wanted = hold or not trial.may_run
    if not trial.over and wanted != trial.suspended:
        patch["spec"] = {"suspend": wanted}
    return Adjust(trial.name, patch) if patch else None
