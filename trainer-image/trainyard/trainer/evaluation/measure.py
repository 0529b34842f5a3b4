"""One model on all held-out records: the rows of its scores.

Three passes at most: over the tokens of all records, over the questions with answers, and over a few questions one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainyard.api.run.evaluation import ANSWERED, FREE
from trainyard.trainer.data.commands import command_of
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tags import prepared_tags, read_tags
from trainyard.trainer.evaluation.answers import Question, Voice, ends_of, questions
from trainyard.trainer.evaluation.scores import Row, Scores, digests
from trainyard.trainer.evaluation.tokens import score_tokens
from trainyard.trainer.frame.evaluate import Examination
from trainyard.trainer.log import say
from trainyard.trainer.methods.recipes import Material

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1."""
TOKENS_SHARE = 0.2
"""Of the time, that the pass over the tokens takes where there are answers too; a guess for the display."""


@dataclass(frozen=True)
class Records:
    """What every model is measured on, in the same order."""

    examination: Examination
    material: Material
    sequences: Sequences

    @cached_property
    def known(self) -> list[dict[str, Any]]:
        """Of each record what does not depend on a model."""
        tags = read_tags(prepared_tags(self.material.context.data_dir, self.examination.split))
        return [
            {"record": number, "digest": digest, **(tags[number] if number < len(tags) else {})}
            for number, digest in enumerate(digests(self.sequences))
        ]

    def measure(self, model: Any, metrics: Sequence[str], progress: Progress) -> Scores:
        """Score a model that is on the device."""
        rows = [dict(row) for row in self.known]
        answered = any(name in ANSWERED for name in metrics)
        share = TOKENS_SHARE if answered else 1.0
        if any(name in FREE for name in metrics):
            self._tokens(rows, model, "tokenAccuracy" in metrics, lambda done: progress(share * done))
        if answered:
            self._answers(rows, model, metrics, lambda done: progress(share + (1 - share) * done))
        return Scores(rows)

    def _tokens(self, rows: list[dict[str, Any]], model: Any, likeliest: bool, progress: Progress) -> None:
        found = self.examination.batch.fitting(
            lambda size: score_tokens(
                model,
                self.sequences,
                batch_size=size,
                padding_id=self.material.tokenizer.pad_token_id,
                device=self.material.device.kind,
                dtype=self.material.device.compute_dtype,
                likeliest=likeliest,
                progress=lambda done, total: progress(done / total),
            )
        )
        for number, row in enumerate(rows):
            row |= {"loss": float(found.loss[number]), "tokens": int(found.tokens[number])}
            if found.right is not None:
                row["right"] = int(found.right[number])

    def _answers(self, rows: list[dict[str, Any]], model: Any, metrics: Sequence[str], progress: Progress) -> None:
        spec, material = self.material.context.run.spec.evaluation, self.material
        voice = Voice(
            model, material.tokenizer, material.device.kind, material.device.compute_dtype, spec.max_new_tokens
        )
        asked = questions(
            self.sequences,
            max_length=material.context.training.max_length,
            ends=ends_of(model, material.tokenizer),
            most=spec.max_answers,
        )
        if "latencyP50Seconds" in metrics:
            for question, seconds in zip(asked, voice.seconds(asked), strict=False):
                rows[question.example]["latencyP50Seconds"] = seconds
        if "exactMatch" not in metrics and "commandAccuracy" not in metrics:
            return
        said = self.examination.batch.fitting(
            lambda size: voice.answers(asked, batch_size=size, progress=lambda done, total: progress(done / total))
        )
        for question, answer in zip(asked, said, strict=True):
            rows[question.example] |= _compared(voice, question, answer, metrics)
        say(f"{len(asked)} records answered in at most {spec.max_new_tokens} tokens")


def _compared(voice: Voice, question: Question, answer: str, metrics: Sequence[str]) -> Row:
    reference = voice.text(question.reference)
    found: dict[str, Any] = {"answer": answer, "reference": reference}
    if "exactMatch" in metrics:
        found["exactMatch"] = int(answer.split() == reference.split())
    if "commandAccuracy" in metrics and (command := command_of(reference)) is not None:
        found["commandAccuracy"] = int(command_of(answer) == command)
    return found
