"""The handover check as an export step asks for it: questions of this run, its model, and one more program."""

from __future__ import annotations

from pathlib import Path

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.version import dataset_folder
from trainyard.trainer.exports.handover import llamacpp
from trainyard.trainer.exports.handover.answer import Question
from trainyard.trainer.exports.handover.compare import Agreement, Bar, compare
from trainyard.trainer.exports.handover.metadata import check_metadata
from trainyard.trainer.exports.handover.questions import questions
from trainyard.trainer.exports.handover.reference import Reference, answers_of, load_tokenizer
from trainyard.trainer.log import say
from trainyard.trainer.machine import threads


def questions_of(context: RunContext) -> list[Question]:
    """The run's questions; conversations where its tokenizer has a template."""
    return questions(dataset_folder(context), chat=bool(load_tokenizer(context.model_dir).chat_template))


def reference_of(context: RunContext) -> Reference:
    """The trained model's own answers."""
    return answers_of(context.model_dir, questions_of(context))


def check_gguf(file: Path, reference: Reference, *, field: str, exact: bool) -> Agreement:
    """A GGUF file against the model.

    Raises:
        UserError: it is not the same model.
    """
    name = f"{field}: {file.name}"
    check_metadata(file, reference, name=name)
    found = llamacpp.ask(file, reference, threads=threads.available())
    agreement = compare(
        reference.questions,
        reference.answers,
        found,
        bar=Bar(name, exact, tie=reference.tie, bos=reference.bos),
    )
    say(
        f"{name}: {agreement.equal} of {agreement.tokens} tokens as the trained model, {agreement.ties} decided by rounding"
    )
    return agreement
