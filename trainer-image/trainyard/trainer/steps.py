"""From a step and a kind of training to the functions that do it.

A kind of training is a row in `FAMILIES`. What all of them share is in `frame/`; a row names what is left, as
`module:function` in this package, because importing it is the dearest part of some steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from trainyard.api.run.methods import TINY
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.steps import (
    STEP_EVALUATE,
    STEP_EXPORT,
    STEP_PREPARE,
    STEP_PROMOTE,
    STEP_ROLLBACK,
    STEP_TRAIN,
    STEP_VALIDATE,
)
from trainyard.trainer.context import RunContext
from trainyard.trainer.exports import check_targets
from trainyard.trainer.frame.continuity import check_reference
from trainyard.trainer.frame.out_of_memory import Ladder
from trainyard.trainer.phases import trainings
from trainyard.trainer.reporter import Reporter


@dataclass(frozen=True)
class Family:
    """Where a kind of training does what it does by itself."""

    check: str | None
    """(RunContext) of one training: refuses, before anything is fetched, what can be refused by the spec and what is here."""
    prepare: str
    """(RunContext, Reporter) -> None"""
    data_key: str
    """(RunContext) -> str: digest of what the prepared data is made from."""
    train: str
    """frame.train.TrainOnce"""
    ladder: Ladder
    measure: str
    """frame.evaluate.Measure"""
    validate: str
    """(RunContext, Reporter) -> None"""


LANGUAGE = Family(
    check="models.fit:check_base_model",
    prepare="data.prepare_phases:prepare_all",
    data_key="data.prepare:specification_key",
    train="methods.train:train_once",
    ladder=Ladder(
        checkpointing=True,
        eight_bit=True,
        way_out="lower spec.training.maxLength (now {max_length}), train a LoRA adapter (spec.model.adapter), or use a GPU with "
        "more memory",
        by_hand="lower spec.training.perDeviceTrainBatchSize and raise gradientAccumulationSteps by the same factor, or lower "
        "maxLength, or set gradientCheckpointing: true, or train a LoRA adapter (spec.model.adapter); with "
        "spec.onOutOfMemory: ReduceBatch the trainer does the first two by itself",
    ),
    measure="evaluation.evaluate:examine",
    validate="dryrun.validate:validate",
)
TRM = Family(
    check=None,
    prepare="trm.prepare:prepare",
    data_key="trm.prepare:specification_key",
    train="trm.train:train_once",
    ladder=Ladder(
        checkpointing=False,
        eight_bit=False,
        way_out="lower hiddenSize, lLayers or lCycles in spec.model.trm, or use a GPU with more memory",
        by_hand="lower spec.training.perDeviceTrainBatchSize and raise gradientAccumulationSteps by the same factor; with "
        "spec.onOutOfMemory: ReduceBatch the trainer does so by itself",
    ),
    measure="trm.evaluate:examine",
    validate="trm.validate:validate",
)


def family_of(spec: TrainingRunSpec) -> Family:
    """The kind of training that a run is. Records alone are made in the same way for all of them."""
    is_trm = spec.training is not None and spec.training.method in TINY
    return TRM if is_trm and spec.mode != "Dataset" else LANGUAGE


def run_step(step: str, context: RunContext, reporter: Reporter, *, name: str = "") -> None:
    """Do a step, by its name in `trainyard.api.steps.STEPS`; `name` says which of the exports.

    Raises:
        UserError: it cannot be done.
    """
    family = family_of(context.run.spec)
    if step == STEP_PREPARE:
        check(context, family)
        found(family.prepare)(context, reporter)
    elif step == STEP_TRAIN:
        from trainyard.trainer.frame.train import train

        load = partial(found, family.train)
        train(context, reporter, key=found(family.data_key), load=load, ladder=family.ladder)
    elif step == STEP_EVALUATE:
        from trainyard.trainer.frame.evaluate import evaluate

        evaluate(context, reporter, key=found(family.data_key), load=partial(found, family.measure))
    elif step == STEP_EXPORT:
        from trainyard.trainer.frame.export import export

        export(context, reporter, name=name)
    elif step in (STEP_PROMOTE, STEP_ROLLBACK):
        from trainyard.trainer.frame.promote import promote, roll_back

        (promote if step == STEP_PROMOTE else roll_back)(context)
    elif step == STEP_VALIDATE:
        found(family.validate)(context, reporter)


def check(context: RunContext, family: Family) -> None:
    """Refuse what can be refused before anything is fetched.

    Raises:
        UserError: a name is misspelt, or the result may not go where it should.
    """
    check_targets(context)
    spec = context.run.spec
    if spec.mode == "Train" and spec.evaluation.compare_with is not None:
        found("evaluation.champion:check_champion")(context)
    if spec.mode in ("Train", "Debug") and spec.evaluation.harness is not None:
        found("evaluation.harness.tasks:check_harness")(context)
    if spec.mode == "Dataset" or spec.command:
        return
    for training in trainings(context):
        check_reference(training)
        if family.check is not None:
            found(family.check)(training)


def found(name: str) -> Any:
    """What a row names; imported by this."""
    module, _, function = name.partition(":")
    return getattr(import_module(f"trainyard.trainer.{module}"), function)
