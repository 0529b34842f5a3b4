"""From a method's name to what `train.py` needs: data, batches, and for the methods that have one an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainyard.api.run.methods import METHODS, Method
from trainyard.api.run.training import Training
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import is_packed
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.teacher import FIELD as TEACHER
from trainyard.trainer.data.teacher import answers
from trainyard.trainer.data.tokenizer import end_tokens
from trainyard.trainer.errors import invalid_config, invalid_data
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.device import Device
from trainyard.trainer.methods.arguments import method_arguments, total_steps
from trainyard.trainer.methods.batches import EpochOrder, SequenceDataset, collate, keeps_examples_apart
from trainyard.trainer.methods.distillation import DistillationObjective, TaughtDataset, collate_taught
from trainyard.trainer.methods.distillation_config import distillation_settings
from trainyard.trainer.methods.dpo import dpo_loss, dpo_settings
from trainyard.trainer.methods.generating import Means, Prompts, Steps
from trainyard.trainer.methods.grpo import Grpo
from trainyard.trainer.methods.grpo_config import grpo_settings, rloo_settings
from trainyard.trainer.methods.kto import AnswerDataset, KtoObjective, Mismatched, collate_answers, kto_settings
from trainyard.trainer.methods.objective import Recipe
from trainyard.trainer.methods.orpo import orpo_beta, orpo_loss
from trainyard.trainer.methods.pairs import (
    PairDataset,
    PairLoss,
    PairObjective,
    Pairs,
    collate_pairs,
    reference_log_probs,
    scores_of,
)
from trainyard.trainer.methods.ppo import Ppo
from trainyard.trainer.methods.ppo_config import ppo_settings
from trainyard.trainer.methods.reward_model import center_coefficient, reward_loss, scorer
from trainyard.trainer.methods.rewards import make_judge
from trainyard.trainer.models.load import load_other, load_untrained
from trainyard.trainer.volume.bases import Address, model_folder
from trainyard.trainer.volume.commit import Committed

Progress = Callable[[int, int], None]
PAIR_LOSSES: dict[str, Callable[[dict[str, Any]], PairLoss]] = {
    "DPO": lambda extra: dpo_loss(dpo_settings(extra)),
    "ORPO": lambda extra: orpo_loss(orpo_beta(extra)),
    "RewardModel": lambda extra: reward_loss(center_coefficient(extra)),
}
"""The methods that learn from pairs: from their own arguments to the loss."""


@dataclass(frozen=True)
class Material:
    """What every method starts from. `held_out` is the split that is evaluated, None without; `quantized` says that the
    model at hand is packed, and a reference has to be so too."""

    context: RunContext
    data: Committed
    device: Device
    tokenizer: Any
    held_out: str | None
    quantized: bool = False

    @property
    def method(self) -> Method:
        """The row of the run's method."""
        return METHODS[self.context.training.method]

    @property
    def vocab_size(self) -> int:
        """Entries of the tokenizer."""
        return int(self.data.manifest["vocabSize"])

    def sequences(self, split: str) -> Sequences:
        """Map one split of the prepared data."""
        return Sequences.open(self.context.data_dir / split, vocab_size=self.vocab_size)

    def load_reference(self) -> Any:
        """The model as it was at the start."""
        return load_untrained(
            self.context,
            self.device,
            self.tokenizer,
            vocab_size=self.vocab_size,
            as_trained=True,
            quantized=self.quantized,
        )


def open_recipe(
    material: Material, *, resume: Path | None = None, progress: Progress = lambda done, total: None
) -> Recipe:
    """The recipe of the run's method. `progress` is told how far the reference is, if one is computed.

    Raises:
        UserError: the arguments or the data do not suit it.
    """
    match material.method.learns.examples:
        case "pairs":
            return _pairs(material, progress)
        case "answers":
            return _kto(material, progress)
        case "prompts":
            return _rewarded(material, resume)
        case _:
            return _taught(material) if material.method.is_taught else _language(material)


def _language(material: Material) -> Recipe:
    train = SequenceDataset(material.sequences("train"))
    held_out = SequenceDataset(material.sequences(material.held_out)) if material.held_out else None
    return Recipe(train, held_out, collate(material.tokenizer.pad_token_id), len(train), "sequences")


def _taught(material: Material) -> Recipe:
    training = material.context.training
    assert training.teacher is not None
    splits = ["train", *([material.held_out] if material.held_out else [])]
    teacher: Any = None
    if training.teacher.http is not None:
        taught = [
            TaughtDataset(material.sequences(split), answers(material.context, material.data, split))
            for split in splits
        ]
        sets: list[SequenceDataset] = list(taught)
    else:
        teacher, sets = load_teacher(material), [SequenceDataset(material.sequences(split)) for split in splits]
        if is_packed(training) and not keeps_examples_apart(
            teacher, vocab_size=material.vocab_size, device=material.device.kind
        ):
            warn(
                f"the teacher, a {teacher.config.model_type}, lets packed examples see each other: training without packing"
            )
            sets = [one.unpacked() for one in sets]
    make_batch, held_out = collate_taught(material.tokenizer.pad_token_id), sets[1] if material.held_out else None
    objective = DistillationObjective(
        distillation_settings(method_arguments(training)),
        teacher=teacher,
        held_out=held_out,
        collate=make_batch,
        entries=material.vocab_size,
        device=material.device.kind,
        dtype=material.device.compute_dtype,
    )
    return Recipe(sets[0], held_out, make_batch, len(sets[0]), "sequences", objective)


def load_teacher(material: Material) -> Any:
    """The model that spec.training.teacher names, frozen.

    Raises:
        UserError: it cannot be loaded, or takes less than the model.
    """
    context, teacher = material.context, material.context.training.teacher
    assert teacher is not None
    assert teacher.storage_uri is not None
    uri = teacher.storage_uri
    folder = model_folder(Address(uri, teacher.secret_ref, field=TEACHER), context)
    model: Any = load_other(folder, material.device, told=f"{TEACHER}.storageUri {uri}")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions < context.training.max_length:
        raise invalid_config(
            f"spec.training.maxLength {context.training.max_length} is more than the {positions} positions of the teacher {uri}",
            hint=f"lower maxLength to {positions} or less",
        )
    if (rows := model.get_input_embeddings().weight.shape[0]) < material.vocab_size:
        raise invalid_config(
            f"the tokenizer has {material.vocab_size} entries, the teacher {uri} only {rows} embeddings",
            hint="tokenizer and weights of the teacher are not of the same model",
        )
    say(f"teacher: {uri}, {model.num_parameters():,} parameters")
    return model


def _pairs(material: Material, progress: Progress) -> Recipe:
    train = material.sequences("train")
    held_out = material.sequences(material.held_out) if material.held_out else None
    references: tuple[Any, Any] = (None, None)
    if material.method.has_reference:
        references = (
            pair_reference(material, "train", train, _pairs_seen(material.context, len(train)), progress),
            pair_reference(material, material.held_out, held_out, np.arange(len(held_out)), progress)
            if material.held_out and held_out is not None
            else None,
        )
    held_out_set = PairDataset(held_out, references[1]) if held_out is not None else None
    make_batch = collate_pairs(material.tokenizer.pad_token_id)
    objective = pair_objective(material, held_out_set)
    return Recipe(PairDataset(train, references[0]), held_out_set, make_batch, len(train), "pairs", objective)


def pair_objective(material: Material, held_out: PairDataset | None) -> PairObjective:
    """The loss of the method, with the pairs to evaluate on."""
    device, dtype = material.device.kind, material.device.compute_dtype
    return PairObjective(
        PAIR_LOSSES[material.context.training.method](method_arguments(material.context.training)),
        held_out=held_out,
        collate=collate_pairs(material.tokenizer.pad_token_id),
        device=device,
        dtype=dtype,
        scores=scorer(device, dtype) if material.method.makes_scores else scores_of,
    )


def _kto(material: Material, progress: Progress) -> Recipe:
    train = judged_answers(material, "train")
    seen = _pairs_seen(material.context, len(train))
    train_set = AnswerDataset(train, answer_reference(material, "train", train, seen, progress))
    held_out = held_out_answers(material, progress) if material.held_out else None
    make_batch = collate_answers(material.tokenizer.pad_token_id)
    return Recipe(train_set, held_out, make_batch, len(train), "answers", kto_objective(material, held_out))


def judged_answers(material: Material, split: str) -> Mismatched:
    """One split, each prompt also with another record's answer."""
    training = material.context.training
    return Mismatched(material.sequences(split), seed=training.seed, max_length=training.max_length)


def held_out_answers(material: Material, progress: Progress) -> AnswerDataset:
    """The split that is evaluated, with its reference."""
    assert material.held_out is not None
    answers = judged_answers(material, material.held_out)
    reference = answer_reference(material, material.held_out, answers, np.arange(len(answers)), progress)
    return AnswerDataset(answers, reference)


def answer_reference(material: Material, split: str, answers: Mismatched, order: Any, progress: Progress) -> Any:
    """As `pair_reference`; which other answer a prompt has depends on the seed."""
    return pair_reference(material, split, answers, order, progress, told=f"-seed-{material.context.training.seed}")


def kto_objective(material: Material, held_out: AnswerDataset | None) -> KtoObjective:
    """KTO with the run's own arguments."""
    return KtoObjective(
        kto_settings(method_arguments(material.context.training)),
        held_out=held_out,
        collate=collate_answers(material.tokenizer.pad_token_id),
        device=material.device.kind,
        dtype=material.device.compute_dtype,
    )


def pair_reference(
    material: Material, split: str, sequences: Pairs, order: Any, progress: Progress, *, told: str = ""
) -> Any:
    """Log-probabilities of a split under the reference; computed if they are not on the volume yet, under a name with `told`."""
    folder = material.context.work_dir / "reference" / str(material.data.manifest["key"])[:16]

    def load() -> Any:
        say(f"reference: log-probabilities of {len(order)} {split} {material.method.learns.examples}")
        return material.load_reference()

    return reference_log_probs(
        folder / f"{split}{told}{'-nf4' if material.quantized else ''}.npy",
        sequences,
        order,
        load=load,
        padding_id=material.tokenizer.pad_token_id,
        device=material.device.kind,
        dtype=material.device.compute_dtype,
        progress=progress,
    )


def _pairs_seen(context: RunContext, pairs: int) -> Any:
    """The pairs that the run will come to, in the order of its first epoch."""
    training = context.training
    wanted = total_steps(context, pairs) * training.per_device_train_batch_size * training.gradient_accumulation_steps
    return np.asarray(list(EpochOrder(pairs, training.seed)))[:wanted]


def _rewarded(material: Material, resume: Path | None) -> Recipe:
    training = material.context.training
    plan = rollout_plan(training)
    prompts = _prompts(material, "train", plan)
    held_out = _prompts(material, material.held_out, plan) if material.held_out else None
    own = plan.compares and not adds_to_start(material.context)
    objective = rewarded_objective(
        material, prompts=prompts, held_out=held_out, reference=material.load_reference() if own else None
    )
    step_size = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return Recipe(
        Steps(len(prompts), passes=plan.passes, step_size=step_size),
        held_out,
        lambda rows: {},
        len(prompts),
        "prompts",
        objective,
        attach=lambda model: objective.attach(model, resume),
    )


def adds_to_start(context: RunContext) -> bool:
    """Whether the model with its adapter off is the model as it was at the start."""
    adapter = context.model.adapter
    return adapter is not None and adapter.from_ is None and adapter.lora.initialisation == "Zero"


@dataclass(frozen=True)
class RolloutPlan:
    """What generation needs to know of a method's own arguments."""

    length: int
    argument: str
    """The argument that says it."""
    temperature: float
    passes: int
    """How often a prompt is seen in an epoch: completions of it times optimizer steps on each."""
    compares: bool = True
    """Whether the training needs a reference."""
    missing_eos_penalty: float | None = None


def rollout_plan(training: Training) -> RolloutPlan:
    """Raises UserError: an argument is out of range."""
    own = method_arguments(training)
    if training.method == "PPO":
        ppo = ppo_settings(own)
        return RolloutPlan(
            ppo.response_length,
            "response_length",
            ppo.temperature,
            ppo.num_ppo_epochs,
            missing_eos_penalty=ppo.missing_eos_penalty,
        )
    grouped = rloo_settings(own) if training.method == "RLOO" else grpo_settings(own)
    passes = grouped.num_generations * grouped.num_iterations
    return RolloutPlan(
        grouped.max_completion_length, "max_completion_length", grouped.temperature, passes, compares=grouped.beta != 0
    )


def rewarded_objective(
    material: Material, *, prompts: Prompts | None, held_out: Prompts | None, reference: Any, measures: bool = False
) -> Ppo | Grpo:
    """The method with the run's rewards. With `measures` the divergence from the reference is told in any case."""
    training = material.context.training
    plan, own = rollout_plan(training), method_arguments(training)
    means = Means(
        prompts=prompts,
        held_out=held_out,
        judge=make_judge(material.context, material.device, material.tokenizer),
        reference=reference,
        tokenizer=material.tokenizer,
        ends=end_tokens(material.tokenizer),
        micro_batch=training.per_device_train_batch_size,
        accumulation=training.gradient_accumulation_steps,
        seed=training.seed,
        device=material.device.kind,
        dtype=material.device.compute_dtype,
        length=plan.length,
        temperature=plan.temperature,
        missing_eos_penalty=plan.missing_eos_penalty,
        compares=plan.compares or measures,
    )
    match training.method:
        case "PPO":
            return Ppo(ppo_settings(own), means)
        case "RLOO":
            return Grpo(rloo_settings(own), means)
        case _:
            return Grpo(grpo_settings(own), means)


def _prompts(material: Material, split: str, plan: RolloutPlan) -> Prompts:
    max_length = material.context.training.max_length
    prompts = Prompts(material.sequences(split), room=max_length - plan.length)
    if not len(prompts):
        raise invalid_data(
            f"no {split} prompt leaves room for a response of {plan.length} tokens within maxLength {max_length}",
            hint=f"raise spec.training.maxLength, or lower extraArgs.{plan.argument}",
        )
    if prompts.left_out:
        say(f"{split}: {prompts.left_out} prompts leave no room for {plan.length} tokens and are left out")
    return prompts


def evaluation_objective(material: Material) -> PairObjective | KtoObjective | Ppo | Grpo:
    """For the evaluate step: the method's own metrics on the held-out split."""
    assert material.held_out is not None
    if material.method.learns.examples == "prompts":
        held_out = _prompts(material, material.held_out, rollout_plan(material.context.training))
        reference = material.load_reference()
        return rewarded_objective(material, prompts=None, held_out=held_out, reference=reference, measures=True)
    if material.method.learns.examples == "answers":
        return kto_objective(material, held_out_answers(material, lambda done, total: None))
    sequences, reference = material.sequences(material.held_out), None
    if material.method.has_reference:
        order = np.arange(len(sequences))
        reference = pair_reference(material, material.held_out, sequences, order, lambda done, total: None)
    return pair_objective(material, PairDataset(sequences, reference))
