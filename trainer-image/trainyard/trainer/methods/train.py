"""The train step, from top to bottom.

    is it done already?  ->  prepared data  ->  checkpoint to go on from  ->  model  ->  trainer  ->  train  ->  export

Pretrain, CPT and SFT differ in where the weights come from and in which tokens count for the loss. Both are settled before
this point (by `spec.model` and by the prepare step), so one recipe serves all three. DPO, ORPO and PPO bring their own data
and loss (`recipes.py`), and share the rest.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.api.run.methods import METHODS
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import is_packed, open_prepared, specification_key
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.machine.team import team_of
from trainyard.trainer.methods.out_of_memory import (
    DidNotFit,
    Reductions,
    fitted,
    has_eight_bit_optimizer,
    one_rung_down,
    recall,
    remember,
    too_large,
)
from trainyard.trainer.methods.out_of_memory import smaller_evaluation as smaller_batches
from trainyard.trainer.models.estimate import optimizer_bytes
from trainyard.trainer.models.quantize import is_quantized
from trainyard.trainer.provenance import provenance, started_at
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.signals import STOP
from trainyard.trainer.volume import checkpoint, space
from trainyard.trainer.volume.commit import Committed, commit_folder
from trainyard.trainer.volume.result import find_checkpoint, find_result, report_result

if TYPE_CHECKING:
    from trainyard.trainer.models.load import Loaded

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "tokenizers")
"""Whose versions decide over the result."""


def train(context: RunContext, reporter: Reporter) -> None:
    """Train to the end and leave `model/` (or `adapter/`) behind. Does nothing if they are there.

    Raises:
        UserError: the spec cannot be honoured, or the volume is damaged.
    """
    reporter.report(phase="load")
    data = open_prepared(context, specification_key(context), reporter)
    if (done := find_result(context)) is not None:
        say(f"training is complete: {done.path.name}/ was committed at step {done.manifest.get('step')}")
        report_result(context, done, reporter)
        return

    clock = time.monotonic()
    with quick_imports():
        from transformers.utils import logging as transformers_logging

        from trainyard.trainer.machine.device import free_memory, is_cuda
        from trainyard.trainer.machine.simulation import simulated_device
        from trainyard.trainer.methods import trainer as _  # noqa: F401 - timed with the imports

    # TRL still spells it gradient_checkpointing and has another default for it, so this is the name to set.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated.*")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    reporter.report(timings={"imports": round(time.monotonic() - clock, 2)})
    team_of().join(cuda=is_cuda())

    reductions = recall(context.work_dir, context.training)
    with simulated_device():
        while True:
            try:
                train_once(context, reporter, data, reductions)
                return
            except DidNotFit as fault:
                step, told = fault.step, str(fault)
            # Here the traceback is gone, and with it model and optimizer.
            free_memory()
            reductions = reduce(context, step=step, told=told)
            say(f"the device ran out of memory at step {step}: {told}")
            say(f"going on with {reductions.taken[-1]}")


def reduce(context: RunContext, *, step: int, told: str) -> Reductions:
    """Take a rung down and remember it.

    Raises:
        UserError: it must not, or there is none; or this process cannot go on, and the next attempt will.
    """
    from trainyard.trainer.machine.device import is_cuda

    reductions = recall(context.work_dir, context.training)
    allowed = context.run.spec.on_out_of_memory == "ReduceBatch"
    # The state of one optimizer is nothing that another could go on from.
    untouched = checkpoint.newest_step(context.checkpoint_dir) is None and not context.run.spec.checkpoints.resume_from
    eight_bit = untouched and has_eight_bit_optimizer("cuda" if is_cuda() else "cpu")
    lower = one_rung_down(reductions, step=step, eight_bit=eight_bit) if allowed else None
    if lower is None:
        raise too_large(told, reductions.settings, allowed=allowed)
    remember(context.work_dir, lower)
    if team_of().size > 1:
        # The other processes wait for this one in the middle of a step: all of them start anew.
        raise too_large(told, reductions.settings, allowed=allowed, again=True)
    return lower


def train_once(context: RunContext, reporter: Reporter, data: Committed, reductions: Reductions) -> None:
    """Train with the settings that the reductions have left.

    Raises:
        DidNotFit: the device ran out of memory.
    """
    import torch

    from trainyard.trainer.data.tokenizer import load_tokenizer
    from trainyard.trainer.machine.device import find_device, keep_freed_memory
    from trainyard.trainer.machine.simulation import simulated_limit
    from trainyard.trainer.methods.arguments import build_arguments, total_steps
    from trainyard.trainer.methods.batches import keeps_examples_apart
    from trainyard.trainer.methods.probe import probe
    from trainyard.trainer.methods.recipes import Material, open_recipe
    from trainyard.trainer.methods.reporting import Reporting
    from trainyard.trainer.methods.samples import Sampling
    from trainyard.trainer.methods.trainer import CommittingTrainer, Stopped
    from trainyard.trainer.models.load import load_for_training
    from trainyard.trainer.models.output_head import use_small_tiles

    started = time.monotonic()
    context = fitted(context, reductions)
    team = team_of()

    # ---- where to go on from
    resume = find_checkpoint(context, data)
    vocab_size = int(data.manifest["vocabSize"])
    device = find_device(context.training.precision, processes=team.local_size)
    if device.kind == "cpu":
        keep_freed_memory()
        use_small_tiles()
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    evaluates = bool(context.training.eval_steps and data.manifest["splits"]["eval"]["sequences"])
    held_out = "eval" if evaluates else None
    material = Material(context, data, device, tokenizer, held_out=held_out, quantized=is_quantized(context))
    recipe = open_recipe(
        material,
        resume=resume.path if resume else None,
        progress=lambda done, total: reporter.report(message=f"reference: {done} of {total} pairs"),
    )
    train_set, count = recipe.train_set, recipe.count
    steps = total_steps(context, len(train_set))
    if resume is not None and resume.step >= steps and resume.path.parent != context.checkpoint_dir:
        raise invalid_config(
            f"spec.checkpoints.resumeFrom is at step {resume.step} already, and the run ends at step {steps}",
            hint="raise spec.training.maxSteps: it counts from the other run's beginning",
        )

    # ---- model
    loaded = load_for_training(
        context, device, tokenizer, vocab_size=vocab_size, resume=resume.path if resume else None
    )
    model: Any = loaded.model.to(device.kind)
    if is_packed(context.training) and not keeps_examples_apart(model, vocab_size=vocab_size, device=device.kind):
        warn(f"{model.config.model_type} lets packed examples see each other: training without packing")
        train_set = train_set.unpacked()
        steps = total_steps(context, len(train_set))
        count = len(train_set)
    recipe.attach(model)
    reporter.report(
        timings={"load": round(time.monotonic() - started, 2)},
        provenance=provenance(
            context, libraries=LIBRARIES, dataset=str(data.manifest["digest"]), revision=loaded.revision
        ),
    )
    if not team.leads and resume is None:
        torch.manual_seed(context.training.seed + team.rank)  # the weights are made: from here on, dropout of its own
    known = {**effective(context, device, model, torch.get_num_threads()), recipe.unit: count}
    reporter.report(effective=known | reductions.noted(), milestone=True)

    # ---- trainer
    rules = context.run.spec.checkpoints
    if rules.keep_best and not (evaluates and METHODS[context.training.method].has_evaluation_loss):
        warn(
            "spec.checkpoints.keepBest has no effect: it needs spec.training.evalSteps, held-out data and an evaluation loss"
        )

    def save(step: int, write: Any) -> None:
        saved = checkpoint.save(context.checkpoint_dir, step, write, data=data.manifest["key"])
        checkpoint.prune(context.checkpoint_dir, rules.keep_last, max_age_days=rules.max_age_days)
        reporter.report(checkpoint=saved.record(context.volume))

    def smaller_evaluation(batch: int, step: int) -> None:
        nonlocal reductions
        reductions = smaller_batches(reductions, batch, step=step)
        remember(context.work_dir, reductions)
        reporter.report(effective=known | reductions.noted(), milestone=True)
        say(f"the device ran out of memory: {reductions.taken[-1]}")

    simulated = simulated_limit()
    is_limited = device.kind == "cuda" or simulated is not None
    reporting = Reporting(
        reporter,
        device,
        process_started=started_at(),
        before_first_step=lambda model: (
            probe(trainer, model, memory=simulated or device.memory) if is_limited else None
        ),
    )
    arguments = build_arguments(context, device, steps=steps, evaluates=evaluates)
    try:
        trainer = CommittingTrainer(
            save=save,
            team=team,
            every_minutes=rules.every_minutes,
            keep_best=rules.keep_best,
            objective=recipe.objective,
            smaller_evaluation=smaller_evaluation if context.run.spec.on_out_of_memory == "ReduceBatch" else None,
            model=model,
            args=arguments,
            train_dataset=stand_in(),
            eval_dataset=stand_in() if evaluates else None,
            processing_class=tokenizer,
            data_collator=recipe.collate,
            callbacks=[reporting],
        )
        trainer.create_optimizer_and_scheduler(steps)
    except (ValueError, TypeError, ImportError) as error:
        raise invalid_config(
            f"spec.training is refused by TRL: {str(error).splitlines()[0]}",
            hint="correct it; the values it speaks of are those of spec.training and its extraArgs",
        ) from error
    trainer.train_dataset, trainer.eval_dataset = train_set, recipe.eval_set
    space.check(storage_needed(context, loaded, steps=steps, evaluates=evaluates), context.work_dir)
    reporting.follow(trainer)
    if evaluates and context.run.spec.evaluation.samples:
        trainer.add_callback(Sampling(context, tokenizer, vocab_size=vocab_size, device=device.kind))
    silence(trainer)
    if resume is not None:
        reporter.report(checkpoint=resume.record(context.volume))
    say(
        f"{context.training.method} for {steps} steps on {device.name} in {device.precision}: "
        f"{count} {recipe.unit}, batch {context.training.per_device_train_batch_size} x "
        f"{context.training.gradient_accumulation_steps}"
        + (f" x {team.size} processes" if team.size > 1 else "")
        + (f", going on from step {resume.step}" if resume else "")
    )

    # ---- train, and leave with a checkpoint when told to
    with (
        STOP.deferred(),
        contextlib.suppress(Stopped),
    ):  # leaving `deferred` after a stop ends the process: run me again
        trainer.train(resume_from_checkpoint=str(resume.path) if resume else None)
    reporter.report(timings={"training": round(trainer.seconds, 1), "waitedForSaves": round(trainer.saver.waited, 2)})

    # ---- export
    if not team.leads:
        return
    reporter.report(phase="save")
    result = export(context, model, trainer_step=trainer.state.global_step, dtype=loaded.source_dtype, data=data)
    report_result(context, result, reporter)


def storage_needed(context: RunContext, loaded: Loaded, *, steps: int, evaluates: bool) -> space.Need:
    """The room that the run will take on its volume."""
    rules, adapter = context.run.spec.checkpoints, context.model.adapter
    saves = -(-steps // rules.every_steps) + 1
    if rules.keep_best and evaluates:
        saves += -(-steps // (context.training.eval_steps or steps))
    width = loaded.source_dtype.itemsize if loaded.source_dtype else loaded.model.dtype.itemsize
    whole = (loaded.parameters - (loaded.trainable if adapter else 0)) * width
    return space.needed(
        saved=4 * loaded.trainable,
        optimizer=loaded.trainable * optimizer_bytes(context.training.optim),
        result=(4 * loaded.trainable + whole * adapter.merge) if adapter else whole,
        saves=saves,
        keep_last=rules.keep_last,
        keeps_best=rules.keep_best,
    )


def export(context: RunContext, model: Any, *, trainer_step: int, dtype: Any, data: Committed) -> Committed:
    """Write the outcome: the model, or the adapter and, if asked, the model with the adapter merged into it."""
    from trainyard.trainer.models.load import merge_into_source

    facts = {"step": trainer_step, "run": context.run.metadata.name, "data": data.manifest["digest"]}
    tokenizer = context.data_dir / "tokenizer"

    def write_adapter(folder: Path) -> None:
        model.save_pretrained(folder)
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)

    def write_model(folder: Path) -> None:
        if is_quantized(context):
            whole = merge_into_source(context)
        else:
            whole = model.merge_and_unload(safe_merge=True) if context.model.adapter else model
        whole.config.use_cache = True
        whole.to(dtype or whole.dtype).save_pretrained(folder)
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)

    if context.model.adapter is not None:
        adapter = commit_folder(context.adapter_dir, write_adapter, **facts)
        say(f"adapter: {adapter.bytes / 1e6:.1f} MB in {adapter.path}")
        if not context.model.adapter.merge:
            return adapter
    result = commit_folder(context.model_dir, write_model, **facts)
    say(f"model: {result.bytes / 1e6:.1f} MB in {result.path}")
    return result


def effective(context: RunContext, device: Any, model: Any, threads: int) -> dict[str, Any]:
    """What really runs, after every automatic choice."""
    adapter = context.model.adapter
    return {
        "device": device.name,
        "precision": device.precision,
        "perDeviceTrainBatchSize": context.training.per_device_train_batch_size,
        "gradientAccumulationSteps": context.training.gradient_accumulation_steps,
        "gradientCheckpointing": context.training.gradient_checkpointing,
        "optim": context.training.optim,
        "processes": context.run.spec.world_size,
        "threads": threads,
        "attention": model.config._attn_implementation,
        "compile": bool(context.training.extra_args.get("torch_compile", False)),
        **({"quantization": adapter.quantization} if adapter is not None and adapter.quantization else {}),
    }


def stand_in() -> Any:
    """A data set of the type that TRL's constructor insists on. The real one is memory-mapped and takes its place."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})


def silence(trainer: Any) -> None:
    """Progress has one voice: ours."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
