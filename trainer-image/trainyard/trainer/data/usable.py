"""Which records are usable for a model, and what is said where some are not.

Records were right by their format before; here the model's own template, tokenizer and length decide. Those that it does not
take are told like all other faults, with file and line. A split that is asked for and in which nothing is left ends the step,
and says which split it is and what happened to its records: a training must not run to its end for an evaluation that cannot
be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.chat import BEGINNING, CALL_ALONE, REWRITTEN, SWITCHED_OFF
from trainyard.trainer.data.records import Built, Faults, notes_of_places
from trainyard.trainer.data.row import Fault
from trainyard.trainer.data.tokenize import LONG, SHORT, SILENT, Tally
from trainyard.trainer.data.unshown import CALLS, REASONING, TOOLS
from trainyard.trainer.errors import UserError, invalid_data
from trainyard.trainer.log import warn

_DROPPED = {
    LONG: "longer than {length} tokens before anything counts",
    SHORT: "of a single token",
    SILENT: "without an answer that counts",
}
_LEFT_OUT = {
    REWRITTEN: "the chat template shows them, or what comes before them, differently in the whole conversation",
    BEGINNING: "the chat template refuses the conversation up to them",
    SWITCHED_OFF: "their messages say weight: 0 or train: false",
    CALL_ALONE: "they are calls of tools, which the chat template does not show",
}
_UNSHOWN = {CALLS: "calls of tools", TOOLS: "descriptions of tools", REASONING: "reasoning"}


def facts_of(tally: Tally) -> dict[str, Any]:
    """What happened to a split's records, for the manifest and the dry run's report."""
    return {
        "records": tally.records,
        "examples": tally.examples,
        "tokens": tally.tokens,
        "truncated": tally.truncated,
        "dropped": tally.dropped.total(),
        "droppedFor": dict(tally.dropped),
        "answersLeftOut": dict(tally.left_out),
        "notShown": dict(tally.unshown),
    }


def remarks(tally: Tally, max_length: int) -> list[str]:
    """What people should know of a split's records beside their number."""
    found = [f"{tally.truncated} cut at {max_length} tokens"] if tally.truncated else []
    found += [f"{count} dropped: {_DROPPED[why].format(length=max_length)}" for why, count in tally.dropped.items()]
    found += [f"{count} answers do not count: {_LEFT_OUT[why]}" for why, count in tally.left_out.items()]
    found += [
        f"{count} records have {_UNSHOWN[part]}, which the model's chat template does not show, so nothing is learned of them"
        for part, count in tally.unshown.items()
    ]
    return found


def check_usable(context: RunContext, built: Built, tallies: Mapping[str, Tally]) -> None:
    """Whether the model can work with the splits.

    Raises:
        UserError: records that it does not take, or a split that is asked for and has nothing left.
    """
    faults = Faults()
    for split, tally in tallies.items():
        for number, why in tally.refused.items():
            faults.add(Fault(built.place_of(split, number, notes_of_places(context)), why))
        faults.count += tally.refusals - len(tally.refused)
    faults.raise_if_any(sum(tally.records for tally in tallies.values()), hint=_refused_hint(faults))
    if not tallies["train"].examples:
        raise _nothing_to_train_on(context, built, tallies)
    _check_held_out(context, built, tallies)


def _refused_hint(faults: Faults) -> str:
    if any("chat template" in fault.message for fault in faults.listed):
        return (
            "bring the messages into the order that the model knows (often: no system message, strictly user and assistant "
            "in turn), remove these records, or use another chat template; the log lists the first twenty"
        )
    return "correct or remove these records; the log lists the first twenty"


def _nothing_to_train_on(context: RunContext, built: Built, tallies: Mapping[str, Tally]) -> UserError:
    tally, told = tallies["train"], "nothing is left to train on: "
    if tally.records:
        return invalid_data(told + _all_of(context, "training", tally), hint=_way_out(context, tally))
    held_out = sum(other.records for name, other in tallies.items() if name != "train")
    if built.manifest["splits"]["train"]["records"]:
        return invalid_data(
            f"{told}weight takes none of {built.manifest['splits']['train']['records']} training records",
            hint="raise weight of the datasets, or add records",
        )
    return invalid_data(
        f"{told}all {held_out} records are held out", hint="lower split.eval and split.test, or add records"
    )


def _check_held_out(context: RunContext, built: Built, tallies: Mapping[str, Tally]) -> None:
    spec = context.run.spec
    last = context.phase is None or context.is_last_phase
    asked = spec.evaluation.split if last and "evaluate" in spec.steps() else None
    if asked is not None and not (tally := tallies[asked.lower()]).examples:
        name = asked.lower()
        if tally.records:
            raise invalid_data(
                f"nothing is left to evaluate on: {_all_of(context, f'held-out ({name})', tally)}",
                hint=f"{_way_out(context, tally)}, or set spec.evaluation.enabled: false",
            )
        shares = ", ".join(
            f"split.{name} {share:g} of dataset {d.name}"
            for d in context.datasets
            if d.split is not None and (share := getattr(d.split, name))
        )
        raise invalid_data(
            f"nothing is left to evaluate on: {shares or 'no dataset'} holds out none of "
            f"{tallies['train'].records} records",
            hint=f"raise split.{name}, add records, or set spec.evaluation.enabled: false",
        )
    steps = context.training.eval_steps
    if steps is not None and not tallies["eval"].examples:
        if context.training.early_stopping is not None:
            raise nothing_to_stop_by()
        warn(f"spec.training.evalSteps {steps} has no effect: no record of the split eval can be used")


def nothing_to_stop_by() -> UserError:
    """Early stopping without anything that is held out."""
    return invalid_data(
        "spec.training.earlyStopping looks at held-out records, and no record of the split eval can be used",
        hint="set split.eval on a dataset, or remove earlyStopping",
    )


def _all_of(context: RunContext, kind: str, tally: Tally) -> str:
    """`all 6 training records are longer than 128 tokens before anything counts`."""
    length = context.training.max_length
    if len(tally.dropped) == 1:
        ((why, count),) = tally.dropped.items()
        told = f"all {count} {kind} records are {_DROPPED[why].format(length=length)}"
    else:
        parts = ", ".join(f"{count} are {_DROPPED[why].format(length=length)}" for why, count in tally.dropped.items())
        told = f"of {tally.records} {kind} records {parts}"
    if tally.dropped[SILENT]:
        told += "".join(f"; {count} answers do not count: {_LEFT_OUT[why]}" for why, count in tally.left_out.items())
    return told


def _way_out(context: RunContext, tally: Tally) -> str:
    ways = {
        LONG: f"raise spec.training.maxLength (now {context.training.max_length}) above the length of the prompts",
        SILENT: "use a base whose chat template shows calls of tools"
        if tally.left_out[CALL_ALONE]
        else "let an answer count, or use a chat template that shows answers as they are asked for",
        SHORT: "add longer records",
    }
    return next((way for why, way in ways.items() if tally.dropped[why]), "add records")
