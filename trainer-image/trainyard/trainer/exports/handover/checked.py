"""The handover check as an export step asks for it: questions of this run, its model, and one more program."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.version import dataset_folder
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports.exported import FOLDER, digest_of
from trainyard.trainer.exports.handover import llamacpp
from trainyard.trainer.exports.handover.answer import NEW_TOKENS, Answer, Question, longest_answer
from trainyard.trainer.exports.handover.compare import Agreement, Bar, compare
from trainyard.trainer.exports.handover.metadata import check_metadata
from trainyard.trainer.exports.handover.questions import questions
from trainyard.trainer.exports.handover.reference import (
    Reference,
    load_tokenizer,
    positions_of,
    prompt_of,
    reference_with,
    said_by,
)
from trainyard.trainer.log import say
from trainyard.trainer.machine import threads
from trainyard.trainer.machine.apart import apart
from trainyard.trainer.volume.commit import write_durably
from trainyard.trainer.volume.result import find_result

KEPT = "answers.json"


def questions_of(model: Path, dataset: Path) -> list[Question]:
    """Of a run with this result and data; conversations where the model's tokenizer has a template.

    Raises:
        UserError: the model is too short for any of them.
    """
    tokenizer, positions = load_tokenizer(model), positions_of(model)

    def fits(question: Question) -> bool:
        return positions is None or len(prompt_of(tokenizer, question)[1]) <= positions - longest_answer(positions)

    found = questions(dataset, chat=bool(tokenizer.chat_template), fits=fits)
    if not found:
        raise invalid_config(
            f"no prompt fits the {positions} positions of the model, so nothing tells whether an exported file answers as it does",
            hint="give the base more positions (max_position_embeddings), or its chat template a shorter system prompt",
        )
    return found


def reference_of(context: RunContext) -> Reference:
    """The trained model's own answers; computed by the first export that asks, and kept beside the exports for the others."""
    result, model = find_result(context), context.model_dir
    assert result is not None, "the frame of the step has asked for it"
    key = [digest_of(result), dataset_folder(context).name, NEW_TOKENS]
    kept = context.run_dir / FOLDER / KEPT
    try:
        known = json.loads(kept.read_text())
        if known["key"] == key:
            asked = [_question(one) for one in known["questions"]]
            return reference_with(model, asked, [_answer(one) for one in known["answers"]], known["ends"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or of another version of this file
    asked, answers, ends = apart(_asked_and_said, model, dataset_folder(context))
    kept.parent.mkdir(parents=True, exist_ok=True)
    lists = {"questions": [asdict(one) for one in asked], "answers": [asdict(one) for one in answers]}
    write_durably(kept, json.dumps({"key": key, **lists, "ends": sorted(ends)}))
    return reference_with(model, asked, answers, ends)


def _asked_and_said(model: Path, dataset: Path) -> tuple[list[Question], list[Answer], frozenset[int]]:
    asked = questions_of(model, dataset)
    return asked, *said_by(model, asked)


def _question(kept: dict[str, Any]) -> Question:
    return Question(**{**kept, "messages": tuple(kept["messages"])})


def _answer(kept: dict[str, Any]) -> Answer:
    return Answer(**{**kept, "ids": tuple(kept["ids"]), "prompt_ids": tuple(kept["prompt_ids"])})


def check_gguf(file: Path, reference: Reference, *, field: str, exact: bool) -> Agreement:
    """A GGUF file against the model.

    Raises:
        UserError: it is not the same model.
    """
    name = f"{field}: {file.name}"
    # What they have read and computed is more than the model itself, so each has it for a while only.
    apart(check_metadata, file, reference, name=name)
    found = apart(llamacpp.ask, file, reference, threads=threads.available())
    agreement = compare(reference, found, bar=Bar(name, exact))
    say(
        f"{name}: {agreement.equal} of {agreement.tokens} tokens as the trained model, {agreement.ties} decided by rounding"
    )
    return agreement
