"""How a Tiny Recursive Model is trained: network and data  ->  state of the checkpoint  ->  loop  ->  model/

A checkpoint holds everything: raw weights, averaged weights, the best averaged weights so far and their measure, optimizer
moments, slots, the position in the data. A run that was killed anywhere ends, on a CPU, with the same bytes as one that
was not. What all trainings share is in `frame/train.py`.

Of several processes the first one measures, saves, reports and writes the model. The others wait for it where all decide
together: at the border between two steps.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainyard.api.conditions import Reason
from trainyard.api.run.training import stopping_metric
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.usable import nothing_to_stop_by
from trainyard.trainer.errors import UNEXPECTED, UserError, invalid_config
from trainyard.trainer.frame.early_stop import Seen
from trainyard.trainer.frame.out_of_memory import DidNotFit, told_by
from trainyard.trainer.frame.train import Attempt, Plan
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import Device
from trainyard.trainer.machine.team import ALONE, Team
from trainyard.trainer.models.card import CARD, model_card
from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.augment import augmentation
from trainyard.trainer.trm.fit import Fit, Recipe, Report, cache_sized_chunk
from trainyard.trainer.trm.folder import Split, read_split
from trainyard.trainer.trm.inference import CHECKPOINT_FILE, WEIGHTS_FILE
from trainyard.trainer.trm.losses import choose_loss
from trainyard.trainer.trm.measure import Stopped, measure
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.narrate import Narrator
from trainyard.trainer.trm.shape import Shape
from trainyard.trainer.trm.state import Best, read_state, whole_latent, write_state
from trainyard.trainer.trm.stream import Stream
from trainyard.trainer.trm.task import TASK_FILE, check_task, masked_id, settings
from trainyard.trainer.volume.commit import Committed, commit_folder
from trainyard.trainer.volume.saving import size_of

DEFAULT_LEARNING_RATE = 1e-4
EVALUATED = 512
"""Held-out examples that are looked at during training; the evaluate step looks at all."""


def train_once(attempt: Attempt) -> Committed | None:
    """Train with the settings of this attempt.

    Raises:
        DidNotFit: the device ran out of memory.
        UserError: the spec cannot be honoured, or the volume is damaged.
    """
    context, data, device, team = attempt.context, attempt.data, attempt.device, attempt.team
    check_task(context, data.manifest["task"])
    fit = make_fit(context, data, device, team=team)
    best = Best() if attempt.resume is None else read_state(attempt.resume.path, fit)
    if attempt.resume is not None and attempt.resume.path.parent != context.checkpoint_dir:
        best.early = Seen()  # what another run has seen does not end this one
    fit.recipe = replace(fit.recipe, steps=attempt.last_step(fit.recipe.steps))
    held_out = context.data_dir / "eval"
    watched = read_split(held_out, name="eval") if context.training.eval_steps and held_out.is_dir() else None
    if context.training.early_stopping is not None and watched is None:
        raise nothing_to_stop_by()
    attempt.begin(plan_of(attempt, fit, names_best=watched is not None))
    # Leaving `deferred` after a stop ends the process: run me again.
    with STOP.deferred():
        attempt.reporter.report(phase="train")
        if not Loop(attempt, fit, best, watched).run():
            return None
    if not team.leads:
        return None
    attempt.reporter.report(phase="save")
    return export(context, fit, best, data)


def plan_of(attempt: Attempt, fit: Fit, *, names_best: bool) -> Plan:
    """What stands before the first step."""
    weights, average = size_of(fit.network.state_dict()), size_of(fit.average.values)
    slots = fit.team.size * size_of(list(fit.slots.latent)) + 2 * fit.slots.draw.inputs.nbytes
    return Plan(
        steps=fit.recipe.steps,
        told=f"{fit.network.shape.parameters:,} weights, {attempt.data.manifest['groups']} groups, batch {fit.recipe.batch}"
        + (f" on {fit.team.size} processes" if fit.team.size > 1 else ""),
        effective=effective(fit, attempt.device),
        libraries=("torch",),
        weights_bytes=weights + average * (1 + names_best) + slots,
        optimizer_bytes=2 * size_of(list(fit.network.parameters())),
        result_bytes=weights,
        names_best=names_best,
    )


class Loop:
    """The steps of one attempt, and what comes between two of them: look, tell, save, stop."""

    def __init__(self, attempt: Attempt, fit: Fit, best: Best, watched: Split | None) -> None:
        spec = attempt.context.run.spec
        every = 1 if spec.mode == "Debug" else attempt.context.training.logging_steps
        self._attempt, self._fit, self._best, self._watched = attempt, fit, best, watched
        self._rules = spec.checkpoints
        self._narrator = Narrator(attempt.reporter, attempt.device, fit, every=every)
        self._saved_at, self._saved_step = time.monotonic(), fit.step
        self._over = False
        """Whether evaluations have ended the training, for all processes."""

    def run(self) -> bool:
        """Returns whether it got to the end; if not, everything is committed.

        Raises:
            DidNotFit: the device ran out of memory; what is whole is committed.
        """
        fit = self._fit
        try:
            self._decide()  # an attempt before may have been stopped in the middle of measuring, or has come to its end
            for report in fit.run() if not self._over else ():
                refuse_nonsense(report)
                self._narrator.tell(report)
                if self._decide() or fit.step % self._rules.every_steps == 0 or fit.step >= fit.recipe.steps:
                    self._save()
                if self._over:
                    break
            return True
        except Stopped:
            if fit.step > self._saved_step:
                self._save()
            fit.team.wait()  # whoever leaves first must not take the one that writes along
            return False
        except RuntimeError as error:
            told = told_by(error)
        fit.network.zero_grad(set_to_none=True)
        if fit.whole and fit.step > self._saved_step and fit.team.size == 1:
            self._save()
        raise DidNotFit(fit.step, told, together=fit.together)

    def _decide(self) -> bool:
        """Together, after a step: whether to stop, and if not, whether it is time to save (returned): it has been long since
        the last one, or these weights are the best so far.

        Raises:
            Stopped: a signal came in, here or in another process.
        """
        fit, before = self._fit, self._best.step
        interrupted = self._look()
        is_best = self._rules.keep_best and self._best.step != before
        over = self._attempt.context.training.early_stopping is not None and self._best.early.over
        due = is_best or over or time.monotonic() - self._saved_at >= self._rules.every_minutes * 60
        interrupted, stop, due, self._over = map(bool, fit.team.sum(interrupted, STOP.requested, due, over))
        if stop:
            STOP.request()
        if interrupted or (stop and fit.step < fit.recipe.steps and not self._over):
            raise Stopped
        return due

    def _look(self) -> bool:
        """Measure, if it is time to. Returns whether a stop came in between."""
        fit, every = self._fit, self._attempt.context.training.eval_steps
        if not fit.team.leads or self._watched is None or not every or fit.step in (0, self._best.measured):
            return False
        if fit.step % every == 0 or fit.step >= fit.recipe.steps:
            watched, best, device = self._watched, self._best, self._attempt.device
            try:
                exact = self._attempt.evaluation.fitting(
                    lambda batch: judge_average(fit, watched, best, device, batch=batch)
                )
            except Stopped:
                return True
            self._narrator.tell_exact(exact)
            rule = self._attempt.context.training.early_stopping
            metric = stopping_metric(self._attempt.context.training)
            if rule is not None and best.early.notice(exact, fit.step, rule, metric):
                say(best.early.told(metric, fit.step))
        return False

    def _save(self) -> None:
        fit, best = self._fit, self._best
        latent = whole_latent(fit)

        def write(folder: Path) -> dict[str, Any]:
            write_state(folder, fit, best, latent=latent)
            keeps = self._rules.keep_best and best.weights
            return {"best": {"step": best.step, "exact": best.exact}} if keeps else {}

        if fit.team.leads:
            self._attempt.reporter.report(phase="save")
            self._attempt.save(fit.step, write)
            self._attempt.reporter.report(phase="train")
        self._saved_at, self._saved_step = time.monotonic(), fit.step


def make_fit(context: RunContext, data: Committed, device: Device, *, team: Team = ALONE) -> Fit:
    """Network, data and recipe as the manifest asks for them, at step 0."""
    task = data.manifest["task"]
    training, trm = context.training, settings(context)
    split = read_split(context.data_dir / "train", name="train")
    shape = make_shape(context, split)
    if trm.compile and device.kind == "cpu" and not can_compile():
        raise invalid_config(
            "spec.training.trm.compile: there is no C++ compiler in this image, or torch is without its headers",
            hint="leave compile out, which costs little on CPUs, or use an image with g++ and all of torch",
        )
    torch.manual_seed(training.seed)
    # Where BF16 cannot be had natively, Auto would be FP16, which needs loss scaling that this loop has not.
    dtype = torch.bfloat16 if device.precision == "BF16" else torch.float32
    network = Network(shape, dtype=dtype).to(device.kind)
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return Fit(
        network=network,
        stream=Stream(
            split, seed=training.seed, augment=augmentation(task) if trm.augment or task["kind"] == "ARC" else None
        ),
        recipe=Recipe(
            steps=total_steps(context, groups=split.groups),
            batch=batch,
            learning_rate=training.learning_rate or DEFAULT_LEARNING_RATE,
            weight_decay=training.weight_decay,
            warmup=training.warmup_steps,
            schedule=training.lr_scheduler_type,
            max_grad_norm=training.max_grad_norm,
            puzzle_learning_rate=trm.puzzle_learning_rate,
            average=trm.ema,
            loss=choose_loss(trm.loss, split.vocab_size),
            exploration=trm.halt_exploration,
            depth_curriculum=trm.depth_curriculum,
            seed=training.seed,
            chunk=min(
                training.per_device_train_batch_size, cache_sized_chunk(shape) if device.kind == "cpu" else batch
            ),
            compile=trm.compile,
            masked=masked_id(task),
        ),
        device=torch.device(device.kind),
        team=team,
    )


def can_compile() -> bool:
    """Whether torch.compile finds what it needs for a CPU."""
    header = Path(torch.__file__).parent / "include" / "torch" / "csrc" / "inductor" / "cpp_prefix.h"
    return shutil.which("g++") is not None and header.exists()


def make_shape(context: RunContext, split: Split) -> Shape:
    """The network that spec.model.trm describes, for this data."""
    spec = context.model.trm
    if spec is None:
        raise invalid_config("spec.model.trm is missing", hint="method TRM trains a Tiny Recursive Model")
    return Shape(
        vocab_size=split.vocab_size,
        sequence_length=split.length,
        puzzles=split.puzzle_rows,
        hidden_size=spec.hidden_size,
        num_heads=spec.num_heads,
        expansion=spec.expansion,
        l_layers=spec.l_layers,
        h_cycles=spec.h_cycles,
        l_cycles=spec.l_cycles,
        mixer=spec.mixer,
        registers=spec.registers,
        max_iterations=spec.max_iterations,
    )


def total_steps(context: RunContext, *, groups: int) -> int:
    """Optimizer steps: an epoch is one example of every group. At least one, however small the data."""
    training = context.training
    steps = training.max_steps
    if steps is None:
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
        steps = max(1, math.ceil((training.num_train_epochs or 1) * groups / batch))
    return min(steps, context.run.spec.debug_steps) if context.run.spec.mode == "Debug" else steps


def judge_average(fit: Fit, split: Split, best: Best, device: Device, *, batch: int) -> float:
    """Exact share of the averaged weights on held-out examples; they are remembered if none were better.

    Raises:
        Stopped: the process was told to stop meanwhile.
    """
    network = averaged(fit)
    answers = measure(
        network,
        split,
        device=torch.device(device.kind),
        batch=batch,
        limit=EVALUATED,
        masked=fit.recipe.masked,
    )
    best.offer(answers.exact, float(answers.right.mean()), step=fit.step, weights=fit.average.values)
    return answers.exact


def averaged(fit: Fit) -> Network:
    """A network with the averaged weights (or the raw ones, where no average is kept)."""
    network = Network(fit.network.shape, dtype=fit.network.dtype).to(fit.device)
    network.load_state_dict(fit.network.state_dict())
    network.load_state_dict(fit.average.values, strict=False)
    return network.eval()


def export(context: RunContext, fit: Fit, best: Best, data: Committed) -> Committed:
    """`model/`: weights, config.json, task.json, and the tokenizer of texts. The best weights where some were measured, else
    the last averaged ones."""
    network = averaged(fit)
    if best.weights:
        network.load_state_dict(best.weights, strict=False)

    def write(folder: Path) -> None:
        tensors = {name: value.float().contiguous().cpu() for name, value in network.state_dict().items()}
        save_file(tensors, folder / WEIGHTS_FILE)
        torch.save({"state_dict": tensors}, folder / CHECKPOINT_FILE)
        network.shape.write(folder, loss=fit.recipe.loss, step=best.step or fit.step, task=data.manifest["task"])
        for name in (TASK_FILE, "tokenizer"):
            source = context.data_dir / name
            if source.is_dir():
                (folder / name).mkdir()
                for file in source.iterdir():
                    (folder / name / file.name).write_bytes(file.read_bytes())
            elif source.exists():
                (folder / name).write_bytes(source.read_bytes())
        card = model_card(context, title=context.run.metadata.name, step=fit.step, digest=data.manifest["digest"])
        (folder / CARD).write_text(card)

    facts = {"step": fit.step, "run": context.run.metadata.name, "data": data.manifest["digest"]}
    result = commit_folder(context.model_dir, write, **facts)
    told = f", the weights of step {best.step} ({best.exact:.1%} exact)" if best.weights else ""
    say(f"model: {result.bytes / 1e6:.1f} MB in {result.path}{told}")
    return result


def effective(fit: Fit, device: Device) -> dict[str, Any]:
    """What really runs, after every automatic choice."""
    return {
        "device": device.name,
        "precision": "BF16" if fit.network.dtype == torch.bfloat16 else "FP32",
        "perDeviceTrainBatchSize": fit.recipe.batch // fit.team.size,
        "processes": fit.team.size,
        "slotsTogether": fit.recipe.chunk,
        "parameters": fit.network.shape.parameters,
        "loss": fit.recipe.loss,
        "threads": torch.get_num_threads(),
    }


def refuse_nonsense(report: Report) -> None:
    """End the run when the loss is no number.

    Raises:
        UserError: it is not.
    """
    if not math.isfinite(report.loss):
        raise UserError(
            f"the loss is not a number at step {report.step}",
            hint="lower spec.training.learningRate or raise warmupSteps; checkpoints from before are kept",
            reason=Reason.ERROR,
            exit_code=UNEXPECTED,
        )
