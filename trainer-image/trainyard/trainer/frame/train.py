"""The train step, around what each kind of training does by itself.

    is it done already?  ->  prepared data  ->  checkpoint to go on from  ->  train_once  ->  result
                                                         |                        |
                                                         +--- one rung lower <----+   the device ran out of memory

`train_once` is the function that differs. It gets an `Attempt`, calls `begin` when it knows what it will do, `save` when it
has reached something, and returns the result that it has committed. What spec.checkpoints says, room on the volume, what is
given up when memory runs out, provenance and reports are seen to here, for all trainings alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import open_prepared
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.frame.continuity import check_resumable, record_of
from trainyard.trainer.frame.out_of_memory import (
    DidNotFit,
    EvaluationBatch,
    Ladder,
    Reductions,
    fitted,
    has_eight_bit_optimizer,
    one_rung_down,
    recall,
    remember,
    smaller_evaluation,
    too_large,
)
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.device import Device, find_device, free_memory, is_cuda, keep_freed_memory
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.machine.missing_gpu import gpus_asked
from trainyard.trainer.machine.team import Team, team_of
from trainyard.trainer.provenance import provenance
from trainyard.trainer.reporter import Reporter, position
from trainyard.trainer.volume import checkpoint, space
from trainyard.trainer.volume.checkpoint import Checkpoint
from trainyard.trainer.volume.commit import Committed, Write
from trainyard.trainer.volume.result import find_checkpoint, find_result, report_result


@dataclass(frozen=True)
class Plan:
    """What a training knows before its first step."""

    steps: int
    told: str
    """What is trained on, and the batch, for the log."""
    effective: Mapping[str, Any]
    """What really runs, after every automatic choice; `device` and `precision` are among it."""
    libraries: Sequence[str]
    """Whose versions decide over the result."""
    weights_bytes: int
    """Of a checkpoint, without the optimizer's state."""
    optimizer_bytes: int
    result_bytes: int
    names_best: bool
    """Whether evaluations in between will say which weights are the best so far."""
    revision: str | None = None
    """Of the model that the training starts from."""


@dataclass
class Attempt:
    """One way through a training, with the settings that the reductions have left."""

    context: RunContext
    reporter: Reporter
    data: Committed
    device: Device
    team: Team
    resume: Checkpoint | None
    reductions: Reductions
    evaluation: EvaluationBatch = field(init=False)
    _effective: Mapping[str, Any] = field(init=False, default_factory=dict)
    _started: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.evaluation = EvaluationBatch(
            self.context.training.per_device_eval_batch_size,
            may_shrink=may_reduce(self.context),
            on_smaller=self._evaluate_in_smaller_batches,
        )

    def last_step(self, asked: int) -> int:
        """Where the training ends: as asked, or at the run's own checkpoint where that is beyond."""
        at = self.resume.step if self.resume and self.resume.path.parent == self.context.checkpoint_dir else 0
        if at > asked:
            say(
                f"the checkpoint is at step {at}, and the spec asks for {asked}: nothing is left to train, it becomes the result"
            )
        return max(at, asked)

    def begin(self, plan: Plan) -> None:
        """Check what can be checked before the first step, and tell what the training is.

        Raises:
            UserError: there is nothing to train, or no room for what will be saved.
        """
        context, resume, rules = self.context, self.resume, self.context.run.spec.checkpoints
        if resume is not None and resume.step >= plan.steps and resume.path.parent != context.checkpoint_dir:
            raise invalid_config(
                f"spec.checkpoints.resumeFrom is at step {resume.step} already, and the run ends at step {plan.steps}",
                hint="raise spec.training.maxSteps: it counts from the other run's beginning",
            )
        at = resume.step if resume else 0
        self._effective = plan.effective
        self.reporter.report(
            first_step=at,
            **position(at, plan.steps),
            effective={**plan.effective, **self.reductions.noted()},
            provenance=provenance(
                context, libraries=plan.libraries, dataset=str(self.data.manifest["digest"]), revision=plan.revision
            ),
            timings={"load": round(time.monotonic() - self._started, 2)},
            checkpoint=resume.record(context.volume) if resume else None,
            milestone=True,
        )
        if rules.keep_best and not plan.names_best:
            warn(
                "spec.checkpoints.keepBest has no effect: it needs spec.training.evalSteps, held-out data and an evaluation "
                "that tells which weights are better"
            )
        space.check(storage_needed(context, plan), context.work_dir)
        say(
            f"{context.training.method} for {plan.steps} steps on {plan.effective['device']} in "
            f"{plan.effective['precision']}: {plan.told}" + (f", going on from step {resume.step}" if resume else "")
        )

    def save(self, step: int, write: Write) -> None:
        """Commit a checkpoint, and let those go that spec.checkpoints does not want any more."""
        root, rules = self.context.checkpoint_dir, self.context.run.spec.checkpoints
        saved = checkpoint.save(root, step, write, data=self.data.manifest["key"], **record_of(self.context))
        checkpoint.prune(root, rules.keep_last, max_age_days=rules.max_age_days)
        self.reporter.report(checkpoint=saved.record(self.context.volume))

    def _evaluate_in_smaller_batches(self, size: int) -> None:
        step = self.reporter.fact("step_number") or 0
        self.reductions = smaller_evaluation(self.reductions, size, step=step)
        remember(self.context.work_dir, self.reductions)
        self.reporter.report(effective={**self._effective, **self.reductions.noted()}, milestone=True)
        say(f"the device ran out of memory: {self.reductions.taken[-1]}")


TrainOnce = Callable[[Attempt], Committed | None]
"""Trains to the end and commits the result. None if it was told to stop, or another process writes the result."""


def train(
    context: RunContext,
    reporter: Reporter,
    *,
    key: Callable[[RunContext], str],
    load: Callable[[], TrainOnce],
    ladder: Ladder,
) -> Committed | None:
    """Train to the end and leave `model/` (or `adapter/`) behind. Does nothing if they are there.

    Args:
        key: digest of what the prepared data has to be made from.
        load: imports what trains, which takes seconds.
        ladder: what it can give up.

    Returns:
        The result; None if there is none yet, or another process writes it.

    Raises:
        UserError: the spec cannot be honoured, or the volume is damaged.
    """
    reporter.report(phase="load")
    data = open_prepared(context, key(context), reporter)
    result = find_result(context)
    if result is not None:
        say(f"training is complete: {result.path.name}/ was committed at step {result.manifest.get('step')}")
    else:
        result = until_it_fits(context, reporter, data, load=load, ladder=ladder)
    if result is not None:
        report_result(context, result, reporter)
    return result


def until_it_fits(
    context: RunContext, reporter: Reporter, data: Committed, *, load: Callable[[], TrainOnce], ladder: Ladder
) -> Committed | None:
    """Train, one rung lower each time that the device runs out of memory."""
    clock = time.monotonic()
    with quick_imports():
        from trainyard.trainer.machine.simulation import simulated_device

        train_once = load()
    reporter.report(timings={"imports": round(time.monotonic() - clock, 2)})
    team = team_of()
    team.join(cuda=is_cuda())
    reductions = recall(context.work_dir, context.training)
    with simulated_device():
        while True:
            try:
                return train_once(new_attempt(fitted(context, reductions), reporter, data, team, reductions))
            except DidNotFit as fault:
                step, told, together = fault.step, str(fault), fault.together
            # Here the traceback is gone, and with it model and optimizer.
            free_memory()
            reductions = lower(context, ladder, step=step, told=told, together=together)
            say(f"the device ran out of memory at step {step}: {told}")
            say(f"going on with {reductions.taken[-1]}")


def new_attempt(
    context: RunContext, reporter: Reporter, data: Committed, team: Team, reductions: Reductions
) -> Attempt:
    """Where it goes on from, and what it runs on."""
    resume = find_checkpoint(context, data)
    if resume is not None:
        check_resumable(context, resume)
    device = find_device(
        context.training.precision,
        processes=team.local_size,
        gpus_asked=gpus_asked(context.run.spec, context.step),
    )
    if device.kind == "cpu":
        keep_freed_memory()
    return Attempt(context, reporter, data, device, team, resume, reductions)


def lower(context: RunContext, ladder: Ladder, *, step: int, told: str, together: int | None = None) -> Reductions:
    """Take a rung down and remember it.

    Raises:
        UserError: it must not, or there is none; or this process cannot go on, and the next attempt will.
    """
    reductions = recall(context.work_dir, context.training)
    allowed, adapted = may_reduce(context), context.model.adapter is not None
    # The state of one optimizer is nothing that another could go on from.
    untouched = checkpoint.newest_step(context.checkpoint_dir) is None and not context.run.spec.checkpoints.resume_from
    eight_bit = ladder.eight_bit and untouched and has_eight_bit_optimizer("cuda" if is_cuda() else "cpu")
    found = one_rung_down(
        reductions, step=step, eight_bit=eight_bit, checkpointing=ladder.checkpointing, together=together
    )
    if found is None or not allowed:
        raise too_large(told, reductions.settings, ladder, allowed=allowed, adapted=adapted)
    remember(context.work_dir, found)
    if team_of().size > 1:
        # The other processes wait for this one in the middle of a step: all of them start anew.
        raise too_large(told, reductions.settings, ladder, allowed=allowed, again=True, adapted=adapted)
    return found


def may_reduce(context: RunContext) -> bool:
    """Whether the run may be trained with less memory than its spec asks for."""
    return context.run.spec.on_out_of_memory == "ReduceBatch"


def storage_needed(context: RunContext, plan: Plan) -> space.Need:
    """The room that the run will take on its volume."""
    rules = context.run.spec.checkpoints
    saves = -(-plan.steps // rules.every_steps) + 1
    if rules.keep_best and plan.names_best:
        saves += -(-plan.steps // (context.training.eval_steps or plan.steps))
    return space.needed(
        saved=plan.weights_bytes,
        optimizer=plan.optimizer_bytes,
        result=plan.result_bytes,
        saves=saves,
        keep_last=rules.keep_last,
        keeps_best=rules.keep_best,
    )
