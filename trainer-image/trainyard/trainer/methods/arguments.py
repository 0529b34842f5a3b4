"""From `spec.training` to the arguments of TRL's trainer.

The loop is the same for all methods and takes TRL's SFTConfig. What `extraArgs` may name depends on the method: any argument
of its own configuration class, checked against the real one: name, type, and whether it would have any effect here. An
argument that the run decides by a field of its own, or that its guarantees rest on (where and when it saves, how it resumes,
what data it sees), is refused with the reason; silently ignoring it would be worse, and honouring it would break them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import typing
from dataclasses import fields, make_dataclass
from typing import TYPE_CHECKING, Any

from trainyard.api.run.methods import METHODS
from trainyard.api.run.training import MUON, Training
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.machine.device import Device
from trainyard.trainer.models.known_names import CONFIGURATIONS, optimizer_names, unknown_name

if TYPE_CHECKING:
    from trl import SFTConfig

LORA_FACTOR = 10
"""Low-rank updates need about ten times the learning rate of full training."""

OWN_FIELD = {
    "max_steps": "spec.training.maxSteps",
    "num_train_epochs": "spec.training.numTrainEpochs",
    "per_device_train_batch_size": "spec.training.perDeviceTrainBatchSize",
    "per_device_eval_batch_size": "spec.training.perDeviceEvalBatchSize",
    "gradient_accumulation_steps": "spec.training.gradientAccumulationSteps",
    "learning_rate": "spec.training.learningRate",
    "lr_scheduler_type": "spec.training.lrSchedulerType",
    "warmup_steps": "spec.training.warmupSteps",
    "weight_decay": "spec.training.weightDecay",
    "max_grad_norm": "spec.training.maxGradNorm",
    "max_length": "spec.training.maxLength",
    "packing": "spec.training.packing",
    "optim": "spec.training.optim",
    "bf16": "spec.training.precision",
    "fp16": "spec.training.precision",
    "gradient_checkpointing": "spec.training.gradientCheckpointing",
    "activation_checkpointing": "spec.training.gradientCheckpointing",
    "logging_steps": "spec.training.loggingSteps",
    "eval_steps": "spec.training.evalSteps",
    "neftune_noise_alpha": "spec.training.neftuneNoiseAlpha",
    "seed": "spec.training.seed",
    "save_steps": "spec.checkpoints.everySteps",
    "save_total_limit": "spec.checkpoints.keepLast",
    "resume_from_checkpoint": "spec.checkpoints.resumeFrom",
}
NO_EFFECT = {
    "where and when it saves is the trainer's own": (
        "output_dir save_strategy save_only_model save_on_each_node enable_jit_checkpoint load_best_model_at_end "
        "metric_for_best_model greater_is_better restore_callback_states_from_checkpoint ignore_data_skip push_to_hub "
        "hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision run_name do_train do_eval "
        "do_predict"
    ),
    "the prepare step has tokenised and packed the data already": (
        "dataset_text_field dataset_kwargs dataset_num_proc eos_token pad_token chat_template_path truncation_mode "
        "shuffle_dataset packing_strategy padding_free pad_to_multiple_of eval_packing completion_only_loss "
        "assistant_only_loss remove_unused_columns label_names length_column_name train_sampling_strategy data_seed "
        "dataloader_drop_last"
    ),
    "logging and progress are the trainer's own": (
        "report_to project trackio_space_id disable_tqdm log_level log_level_replica log_on_each_node logging_strategy "
        "logging_first_step logging_nan_inf_filter include_num_input_tokens_seen eval_strategy eval_on_start "
        "prediction_loss_only batch_eval_metrics include_for_metrics eval_do_concat_batches"
    ),
    "the model is loaded by the trainer, and code from a hub is never run": "model_init_kwargs trust_remote_code",
    "processes and devices are those of spec.numNodes and spec.numProcPerNode": (
        "use_cpu local_rank ddp_backend ddp_timeout deepspeed fsdp fsdp_config parallelism_config accelerator_config"
    ),
    "a failed batch size is not searched by repetition": "auto_find_batch_size",
}
NO_EFFECT_IN_PAIRS = {
    "the reference is always computed once and kept": "precompute_ref_log_probs precompute_ref_batch_size",
    "the reference stays as the model was at the start": "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
    "dropout is that of the model and of spec.model.adapter.lora.dropout": "disable_dropout",
    "completions are cut with their prompts at spec.training.maxLength": "max_completion_length",
    "this trainer does not offer it": (
        "ld_alpha f_divergence_type f_alpha_divergence_coef use_weighting discopop_tau router_aux_loss_coef "
        "activation_offloading is_encoder_decoder generate_during_eval padding_value"
    ),
}


def config_class(method: str) -> type:
    """The class whose arguments `extraArgs` may name."""
    from transformers import TrainingArguments

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    package, file, name = CONFIGURATIONS[str(METHODS[method].configuration)][-1]
    found: type = getattr(importlib.import_module(f"{package}.{file.removesuffix('.py').replace('/', '.')}"), name)
    if issubclass(found, TrainingArguments):
        return found
    return make_dataclass(name, [(f.name, f.type, f.default) for f in fields(found)], bases=(TrainingArguments,))


def method_arguments(training: Training) -> dict[str, Any]:
    """The extra arguments that belong to the method itself, not to transformers' loop.

    Raises:
        UserError: as `check_extra_arguments`.
    """
    from transformers import TrainingArguments

    common = {field.name for field in fields(TrainingArguments)}
    checked = check_extra_arguments(training)
    return {name: value for name, value in checked.items() if name not in common}


def check_method_arguments(training: Training) -> None:
    """Names, types and values.

    Raises:
        UserError: one of them is wrong.
    """
    from trainyard.trainer.methods.distillation_config import distillation_settings
    from trainyard.trainer.methods.dpo import dpo_settings
    from trainyard.trainer.methods.grpo_config import grpo_settings, rloo_settings
    from trainyard.trainer.methods.kto import kto_settings
    from trainyard.trainer.methods.orpo import orpo_beta
    from trainyard.trainer.methods.ppo_config import ppo_settings
    from trainyard.trainer.methods.reward_model import center_coefficient

    own = method_arguments(training)
    readers = {
        "DPOConfig": dpo_settings,
        "ORPOConfig": orpo_beta,
        "RewardConfig": center_coefficient,
        "KTOConfig": kto_settings,
        "GRPOConfig": grpo_settings,
        "RLOOConfig": rloo_settings,
        "PPOConfig": ppo_settings,
        "DistillationConfig": distillation_settings,
    }
    readers.get(str(METHODS[training.method].configuration), dict)(own)


def total_steps(context: RunContext, sequences: int) -> int:
    """Optimizer steps of the whole run, from maxSteps or from epochs over `sequences`; fewer in mode Debug."""
    training = context.training
    if training.max_steps is not None:
        steps = training.max_steps
    else:
        per_epoch = steps_per_epoch(training, sequences, processes=context.run.spec.world_size)
        steps = max(1, -int(-(training.num_train_epochs or 1.0) * per_epoch // 1))
    return min(steps, context.run.spec.debug_steps) if context.run.spec.mode == "Debug" else steps


def steps_per_epoch(training: Training, sequences: int, *, processes: int) -> int:
    """Optimizer steps of one pass; the last may be smaller."""
    batches = -(-sequences // (training.per_device_train_batch_size * processes))
    return max(1, -(-batches // training.gradient_accumulation_steps))


def learning_rate(context: RunContext) -> float:
    """The peak, with the method's default."""
    training = context.training
    if training.learning_rate is not None:
        return training.learning_rate
    rate = METHODS[training.method].learning_rate
    assert rate is not None, f"{training.method} has a loop of its own"
    return rate * (LORA_FACTOR if context.model.adapter else 1)


def build_arguments(context: RunContext, device: Device, *, steps: int, evaluates: bool) -> SFTConfig:
    """TRL's configuration for this run.

    Raises:
        UserError: an extra argument is unknown, of the wrong type, or refused.
    """
    from trl import SFTConfig

    training, checkpoints = context.training, context.run.spec.checkpoints
    debug = context.run.spec.mode == "Debug"
    extra = check_extra_arguments(training)
    if METHODS[training.method].configuration != SFTConfig.__name__:
        own = method_arguments(training)
        extra = {name: value for name, value in extra.items() if name not in own}
    check_optimizer(training.optim)
    values: dict[str, Any] = {
        "output_dir": str(context.work_dir / "logs"),
        "max_steps": steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": training.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": learning_rate(context),
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": int(training.warmup_steps) if training.warmup_steps >= 1 else training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "max_length": training.max_length,
        # transformers does not know the name; `optimizer.py` makes it.
        "optim": "adamw_torch" if training.optim == MUON else training.optim,
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "bf16": device.precision == "BF16",
        "fp16": device.precision == "FP16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": 1 if debug else training.logging_steps,
        "logging_first_step": True,
        # The default hides a NaN by logging the average of earlier losses in its place.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": training.eval_steps if evaluates else None,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": checkpoints.every_steps,
        "seed": training.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device.kind == "cpu",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": device.kind == "cuda",
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    try:
        return SFTConfig(**{**values, **extra})
    except (TypeError, ValueError, ImportError) as error:
        raise invalid_config(
            f"spec.training is refused by {SFTConfig.__name__}: {str(error).splitlines()[0]}",
            hint="correct the value; extraArgs: " + (", ".join(extra) or "none"),
        ) from error


def check_extra_arguments(training: Training) -> dict[str, Any]:
    """Names and types against the method's class itself."""
    import pydantic

    configuration = config_class(training.method)
    known = {f.name for f in fields(configuration) if f.init}
    hints = typing.get_type_hints(configuration)
    refused = NO_EFFECT | (
        NO_EFFECT_IN_PAIRS if METHODS[training.method].learns.examples in ("pairs", "answers") else {}
    )
    reasons = {name: reason for reason, names in refused.items() for name in names.split()}
    checked = {}
    for name, value in training.extra_args.items():
        field = f"spec.training.extraArgs.{name}"
        if name not in known:
            raise unknown_name(field, "an argument", configuration.__name__, known)
        if name in OWN_FIELD:
            raise invalid_config(f"{field}: this has a field of its own", hint=f"use {OWN_FIELD[name]}")
        if name in reasons:
            raise invalid_config(f"{field} would have no effect: {reasons[name]}", hint="remove it")
        if hints[name] == list[str] and isinstance(value, str):
            value = [value]  # loss_type: ipo
        adapter = pydantic.TypeAdapter(hints[name], config=pydantic.ConfigDict(arbitrary_types_allowed=True))
        try:
            checked[name] = adapter.validate_python(value, strict=True)
        except pydantic.ValidationError as error:
            wanted = str(hints[name]).replace("typing.", "").replace("<class '", "").replace("'>", "")
            raise invalid_config(
                f"{field}: {value!r} has the wrong type, expected {wanted}",
                hint="a number is written without quotes" if isinstance(value, str) else "correct the value",
            ) from error
    return checked


def check_optimizer(name: str) -> None:
    """Known, and installed."""
    import importlib.util

    known = optimizer_names()
    if known and name not in (*known, MUON):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise invalid_config(
            f"spec.training.optim {name!r} is unknown",
            hint=f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}",
        )
    for marker, package in {
        "8bit": "bitsandbytes",
        "bnb": "bitsandbytes",
        "paged": "bitsandbytes",
        "galore": "galore_torch",
        "lomo": "lomo_optim",
        "grokadamw": "grokadamw",
        "schedule_free": "schedulefree",
        "apollo": "apollo_torch",
        "stable_adamw": "optimi",
        "torch_4bit": "torchao",
        "torch_8bit": "torchao",
        "apex": "apex",
        "npu": "torch_npu",
        "xla": "torch_xla",
    }.items():
        if marker in name and importlib.util.find_spec(package) is None:
            raise invalid_config(
                f"spec.training.optim {name} needs the package {package}, which this image has not",
                hint="use adamw_torch_fused or adafactor, or an image of your own with that package (spec.image)",
            )
