"""How a language model is trained, from top to bottom: data  ->  model  ->  trainer  ->  train  ->  export.

Pretrain, CPT and SFT differ in where the weights come from and in which tokens count for the loss. Both are settled before
this point (by `spec.model` and by the prepare step), so one recipe serves all three. The other methods bring their own data and
loss (`recipes.py`), and share the rest. What all trainings share is in `frame/train.py`.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging as transformers_logging

from trainyard.api.run.methods import METHODS
from trainyard.api.run.training import stopping_metric
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import is_packed
from trainyard.trainer.data.tokenizer import load_tokenizer
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.frame.train import Attempt, Plan
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.simulation import simulated_limit
from trainyard.trainer.methods.arguments import build_arguments, total_steps
from trainyard.trainer.methods.batches import keeps_examples_apart
from trainyard.trainer.methods.callbacks import own_callbacks
from trainyard.trainer.methods.objective import Recipe
from trainyard.trainer.methods.optimizer import optimizer_of
from trainyard.trainer.methods.probe import probe
from trainyard.trainer.methods.recipes import Material, open_recipe
from trainyard.trainer.methods.reporting import Reporting
from trainyard.trainer.methods.samples import Sampling
from trainyard.trainer.methods.state import read_counters
from trainyard.trainer.methods.trainer import CommittingTrainer, Stopped
from trainyard.trainer.models.card import CARD, HELD_OUT_LOSS, TRAINING_LOSS, model_card
from trainyard.trainer.models.estimate import optimizer_bytes
from trainyard.trainer.models.handover import beside, save_model
from trainyard.trainer.models.load import Loaded, load_for_training, merge_into_source
from trainyard.trainer.models.lora import save_adapter
from trainyard.trainer.models.output_head import use_small_tiles
from trainyard.trainer.models.quantize import is_quantized
from trainyard.trainer.signals import STOP
from trainyard.trainer.volume.bases import base_folder
from trainyard.trainer.volume.commit import Committed, commit_folder

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "tokenizers")


def train_once(attempt: Attempt) -> Committed | None:
    """Train with the settings of this attempt.

    Raises:
        DidNotFit: the device ran out of memory.
        UserError: the spec cannot be honoured.
    """
    be_quiet()
    context, data, device, team = attempt.context, attempt.data, attempt.device, attempt.team
    resume = attempt.resume.path if attempt.resume else None
    if device.kind == "cpu":
        use_small_tiles()

    own = own_callbacks(context)

    # ---- data
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    evaluates = bool(context.training.eval_steps and data.manifest["splits"]["eval"]["sequences"])
    held_out = "eval" if evaluates else None
    material = Material(context, data, device, tokenizer, held_out=held_out, quantized=is_quantized(context))
    recipe = open_recipe(
        material,
        resume=resume,
        progress=lambda done, total: attempt.reporter.report(
            message=f"reference: {done} of {total} {material.method.learns.examples}"
        ),
    )
    train_set, count = recipe.train_set, recipe.count

    # ---- model
    vocab_size = material.vocab_size
    loaded = load_for_training(context, device, tokenizer, vocab_size=vocab_size, resume=resume)
    model: Any = loaded.model.to(device.kind)
    if is_packed(context.training) and not keeps_examples_apart(model, vocab_size=vocab_size, device=device.kind):
        warn(f"{model.config.model_type} lets packed examples see each other: training without packing")
        train_set = train_set.unpacked()
        count = len(train_set)
    recipe.attach(model)
    if not team.leads and resume is None:
        torch.manual_seed(context.training.seed + team.rank)  # the weights are made: from here on, dropout of its own
    steps = attempt.last_step(total_steps(context, len(train_set)))
    attempt.begin(plan_of(attempt, loaded, recipe, steps=steps, count=count, evaluates=evaluates))
    if context.training.warmup_steps > steps:
        warn(
            f"spec.training.warmupSteps {context.training.warmup_steps:g} is more than the {steps} steps of the training: its "
            "learning rate is never reached"
        )

    # ---- trainer
    trainer = make_trainer(attempt, model, tokenizer, recipe, own, steps=steps, evaluates=evaluates)
    trainer.train_dataset, trainer.eval_dataset = train_set, recipe.eval_set
    if evaluates and context.run.spec.evaluation.samples and not material.method.makes_scores:
        trainer.add_callback(Sampling(context, tokenizer, vocab_size=vocab_size, device=device.kind))

    # ---- train, and leave with a checkpoint when told to
    at = attempt.resume.step if attempt.resume else 0
    with (
        STOP.deferred(),
        contextlib.suppress(Stopped),
    ):  # leaving `deferred` after a stop ends the process: run me again
        if at < steps and not ended_early(context, resume):  # transformers' loop would take one step more
            its_own = resume is None or resume.parent == context.checkpoint_dir
            trainer.train(resume_from_checkpoint=str(resume) if resume else None, afresh=not its_own)
        elif resume:
            trainer.state = TrainerState.load_from_json(str(resume / TRAINER_STATE_NAME))
    attempt.reporter.report(
        timings={"training": round(trainer.seconds, 1), "waitedForSaves": round(trainer.saver.waited, 2)}
    )

    # ---- export
    if not team.leads:
        return None
    attempt.reporter.report(phase="save")
    return export(
        context,
        model,
        trainer_step=max(at, trainer.state.global_step),
        dtype=loaded.source_dtype,
        data=data,
        metrics=last_losses(trainer.state.log_history),
    )


def ended_early(context: RunContext, resume: Path | None) -> bool:
    """Whether the run's own checkpoint is of a training that its evaluations, or a callback of its own, have ended."""
    training = context.training
    if resume is None or resume.parent != context.checkpoint_dir:
        return False
    counters = read_counters(resume)
    return (training.early_stopping is not None and counters.early.over) or (
        bool(training.callbacks) and counters.ended
    )


def be_quiet() -> None:
    """Progress has one voice: ours."""
    # TRL still spells it gradient_checkpointing and has another default for it, so this is the name to set.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated.*")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def plan_of(attempt: Attempt, loaded: Loaded, recipe: Recipe, *, steps: int, count: int, evaluates: bool) -> Plan:
    """What stands before the first step."""
    training, adapter = attempt.context.training, attempt.context.model.adapter
    width = loaded.source_dtype.itemsize if loaded.source_dtype else loaded.model.dtype.itemsize
    whole = (loaded.parameters - (loaded.trainable if adapter else 0)) * width
    return Plan(
        steps=steps,
        told=f"{count} {recipe.unit}, batch {training.per_device_train_batch_size} x {training.gradient_accumulation_steps}"
        + (f" x {attempt.team.size} processes" if attempt.team.size > 1 else ""),
        effective={**effective(attempt, loaded.model), recipe.unit: count},
        libraries=LIBRARIES,
        weights_bytes=4 * loaded.trainable,
        optimizer_bytes=loaded.trainable * optimizer_bytes(training.optim),
        result_bytes=(4 * loaded.trainable + whole * adapter.merge) if adapter else whole,
        names_best=evaluates and METHODS[training.method].has_evaluation_loss,
        revision=loaded.revision,
    )


def make_trainer(
    attempt: Attempt,
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    own: Sequence[TrainerCallback],
    *,
    steps: int,
    evaluates: bool,
) -> CommittingTrainer:
    """The loop, with optimizer and scheduler.

    Raises:
        UserError: TRL refuses a value of spec.training.
    """
    device, rules = attempt.device, attempt.context.run.spec.checkpoints
    training = attempt.context.training
    memory = simulated_limit() or (device.memory if device.kind == "cuda" else None)
    reporting = Reporting(attempt.reporter, device, before_first_step=partial(probe, memory=memory) if memory else None)
    arguments = build_arguments(attempt.context, device, steps=steps, evaluates=evaluates)
    try:
        trainer = CommittingTrainer(
            save=attempt.save,
            evaluation=attempt.evaluation,
            team=attempt.team,
            every_minutes=rules.every_minutes,
            keep_best=rules.keep_best,
            objective=recipe.objective,
            make_optimizer=optimizer_of(attempt.context),
            early=(rule, stopping_metric(training)) if evaluates and (rule := training.early_stopping) else None,
            own=own,
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
    reporting.follow(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def last_losses(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last that was logged of each loss."""
    told = {"loss": TRAINING_LOSS, "eval_loss": HELD_OUT_LOSS}
    found = {told[name]: line[name] for line in history for name in told if isinstance(line.get(name), float)}
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}


def export(
    context: RunContext,
    model: Any,
    *,
    trainer_step: int,
    dtype: Any,
    data: Committed,
    metrics: Mapping[str, float] | None = None,
) -> Committed:
    """Write the outcome: the model, or the adapter and, if asked, the model with the adapter merged into it."""
    name, digest = context.run.metadata.name, data.manifest["digest"]
    facts = {"step": trainer_step, "run": name, "data": digest}
    tokenizer = context.data_dir / "tokenizer"
    base = base_folder(context) if context.model.storage_uri is not None else None

    def write_beside(folder: Path, *, whole: bool) -> None:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
        card = partial(model_card, context, title=name, step=trainer_step, digest=digest, metrics=metrics, base=base)
        beside(CARD, lambda: (folder / CARD).write_text(card(whole=whole)))

    def write_adapter(folder: Path) -> None:
        save_adapter(model, folder)
        write_beside(folder, whole=False)

    def write_model(folder: Path) -> None:
        if is_quantized(context):
            whole = merge_into_source(context)
        else:
            whole = model.merge_and_unload(safe_merge=True) if context.model.adapter else model
        whole.config.use_cache = True
        save_model(whole.to(dtype or whole.dtype), folder, source=base)
        write_beside(folder, whole=True)

    if context.model.adapter is not None:
        adapter = commit_folder(context.adapter_dir, write_adapter, **facts)
        say(f"adapter: {adapter.bytes / 1e6:.1f} MB in {adapter.path}")
        if not context.model.adapter.merge:
            return adapter
    result = commit_folder(context.model_dir, write_model, **facts)
    say(f"model: {result.bytes / 1e6:.1f} MB in {result.path}")
    return result


def effective(attempt: Attempt, model: Any) -> dict[str, Any]:
    """What really runs, after every automatic choice."""
    context, adapter = attempt.context, attempt.context.model.adapter
    return {
        "device": attempt.device.name,
        "precision": attempt.device.precision,
        "perDeviceTrainBatchSize": context.training.per_device_train_batch_size,
        "gradientAccumulationSteps": context.training.gradient_accumulation_steps,
        "gradientCheckpointing": context.training.gradient_checkpointing,
        "optim": context.training.optim,
        "processes": context.run.spec.world_size,
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "compile": bool(context.training.extra_args.get("torch_compile", False)),
        **({"quantization": adapter.quantization} if adapter is not None and adapter.quantization else {}),
    }


def stand_in() -> Any:
    """A data set of the type that TRL's constructor insists on. The real one is memory-mapped and takes its place."""
    return Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})
