"""The train step of a Tiny Recursive Model.

    done already?  ->  prepared data  ->  checkpoint to go on from  ->  loop  ->  model/

A checkpoint holds everything: raw weights, averaged weights, the best averaged weights so far and their measure, optimizer
moments, slots, the position in the data. A run that was killed anywhere ends, on a CPU, with the same bytes as one that
was not.

Of several processes the first one measures, saves, reports and writes the model. The others wait for it where all decide
together: at the border between two steps.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainyard.api.conditions import Reason
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import open_prepared
from trainyard.trainer.errors import UNEXPECTED, UserError, invalid_config
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import Device, find_device, is_cuda, keep_freed_memory
from trainyard.trainer.machine.team import ALONE, Team, team_of
from trainyard.trainer.provenance import provenance, started_at
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.augment import augmentation
from trainyard.trainer.trm.fit import Fit, Recipe, Report, cache_sized_chunk
from trainyard.trainer.trm.folder import Split, read_split
from trainyard.trainer.trm.inference import WEIGHTS_FILE
from trainyard.trainer.trm.losses import choose_loss
from trainyard.trainer.trm.measure import Stopped, measure
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.narrate import Narrator
from trainyard.trainer.trm.prepare import specification_key
from trainyard.trainer.trm.shape import Shape
from trainyard.trainer.trm.state import Best, read_state, whole_latent, write_state
from trainyard.trainer.trm.stream import Stream
from trainyard.trainer.trm.task import TASK_FILE, check_task, masked_id, settings
from trainyard.trainer.volume import checkpoint
from trainyard.trainer.volume.commit import Committed, commit_folder
from trainyard.trainer.volume.result import find_checkpoint, find_result, report_result

DEFAULT_LEARNING_RATE = 1e-4
EVALUATED = 512
"""Held-out examples that are looked at during training; the evaluate step looks at all."""


def train(context: RunContext, reporter: Reporter) -> None:
    """Train to the end and leave `model/` behind. Does nothing if it is there.

    Raises:
        UserError: the spec cannot be honoured, or the volume is damaged.
    """
    reporter.report(phase="load")
    data = open_prepared(context, specification_key(context), reporter)
    if (done := find_result(context)) is not None:
        say(f"training is complete: {done.path.name}/ was committed at step {done.manifest.get('step')}")
        report_result(context, done, reporter)
        return
    started = time.monotonic()
    task = data.manifest["task"]
    check_task(context, task)
    team = team_of()
    team.join(cuda=is_cuda())
    device = find_device(context.training.precision, processes=team.local_size)
    if device.kind == "cpu":
        keep_freed_memory()
    fit = make_fit(context, data, device, team=team)
    resume = find_checkpoint(context, data)
    best = Best()
    if resume is not None:
        best = read_state(resume.path, fit)
        reporter.report(checkpoint=resume.record(context.volume))
    if fit.step > fit.recipe.steps:
        raise invalid_config(
            f"the checkpoint is at step {fit.step}, and the run ends at step {fit.recipe.steps}",
            hint="raise spec.training.maxSteps or numTrainEpochs",
        )
    reporter.report(
        timings={"load": round(time.monotonic() - started, 2)},
        effective=effective(fit, device),
        provenance=provenance(context, libraries=("torch",), dataset=str(data.manifest["digest"])),
    )
    held_out = context.data_dir / "eval"
    watched = read_split(held_out, name="eval") if context.training.eval_steps and held_out.is_dir() else None
    say(
        f"TRM for {fit.recipe.steps} steps on {device.name} in {effective(fit, device)['precision']}: "
        f"{fit.network.shape.parameters:,} weights, {data.manifest['groups']} groups, batch {fit.recipe.batch}"
        + (f" on {team.size} processes" if team.size > 1 else "")
        + (f", going on from step {fit.step}" if resume else "")
    )
    # Leaving `deferred` after a stop ends the process: run me again.
    with STOP.deferred():
        reporter.report(phase="train", first_step=fit.step)
        if not run(context, reporter, fit, best, watched, data=data, device=device):
            return
    if not team.leads:
        return
    reporter.report(phase="save")
    result = export(context, fit, best, data)
    report_result(context, result, reporter)


def run(
    context: RunContext,
    reporter: Reporter,
    fit: Fit,
    best: Best,
    watched: Split | None,
    *,
    data: Committed,
    device: Device,
) -> bool:
    """The loop with its checkpoints. Returns whether it got to the end; if not, everything is committed."""
    spec, training, team = context.run.spec, context.training, fit.team
    narrator = Narrator(reporter, device, fit, every=1 if spec.mode == "Debug" else training.logging_steps)
    saved_at, saved_step, started = time.monotonic(), fit.step, started_at()

    def save() -> None:
        nonlocal saved_at, saved_step
        latent = whole_latent(fit)
        if team.leads:
            reporter.report(phase="save")
            made = checkpoint.save(
                context.checkpoint_dir,
                fit.step,
                lambda to: write_state(to, fit, best, latent=latent),
                data=data.manifest["key"],
            )
            checkpoint.prune(context.checkpoint_dir, spec.checkpoints.keep_last)
            reporter.report(phase="train", checkpoint=made.record(context.volume))
        saved_at, saved_step = time.monotonic(), fit.step

    def look() -> bool:
        """Measure, if it is time to. Returns whether a stop came in between."""
        if not team.leads or watched is None or not training.eval_steps or fit.step == best.measured:
            return False
        if fit.step and (fit.step % training.eval_steps == 0 or fit.step >= fit.recipe.steps):
            try:
                exact = judge_average(fit, watched, best, device, batch=training.per_device_eval_batch_size)
            except Stopped:
                return True
            narrator.tell_exact(exact)
        return False

    def decide() -> bool:
        """Together, after a step: whether to stop, and if not, whether it has been long since the last save (returned)."""
        due = time.monotonic() - saved_at >= spec.checkpoints.every_minutes * 60
        interrupted, stop, any_due = team.sum(look(), STOP.requested, due)
        if stop:
            STOP.request()
        if interrupted or (stop and fit.step < fit.recipe.steps):
            raise Stopped
        return bool(any_due)

    try:
        decide()  # an attempt before may have been stopped in the middle of measuring
        for report in fit.run():
            refuse_nonsense(report)
            narrator.tell(report, process_started=started)
            if decide() or fit.step % spec.checkpoints.every_steps == 0 or fit.step >= fit.recipe.steps:
                save()
    except Stopped:
        if fit.step > saved_step:
            save()
        team.wait()  # whoever leaves first must not take the one that writes along
        return False
    return True


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
        network.shape.write(folder, loss=fit.recipe.loss, step=best.step or fit.step, task=data.manifest["task"])
        for name in (TASK_FILE, "tokenizer"):
            source = context.data_dir / name
            if source.is_dir():
                (folder / name).mkdir()
                for file in source.iterdir():
                    (folder / name / file.name).write_bytes(file.read_bytes())
            elif source.exists():
                (folder / name).write_bytes(source.read_bytes())

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
            hint="lower spec.training.learningRate or raise warmupSteps; the last good checkpoint is kept",
            reason=Reason.ERROR,
            exit_code=UNEXPECTED,
        )
