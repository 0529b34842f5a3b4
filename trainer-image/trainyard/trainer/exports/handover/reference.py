"""What the trained model answers, by transformers on the committed folder: what every export is held against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.trainer.data.tokenizer import end_tokens
from trainyard.trainer.exports.gguf_files.convert import end_ids
from trainyard.trainer.exports.handover.answer import Answer, Question, longest_answer
from trainyard.trainer.exports.handover.network import load
from trainyard.trainer.exports.handover.rounding import Rounding
from trainyard.trainer.machine.apart import apart
from trainyard.trainer.models.greedy import greedy


@dataclass(frozen=True)
class Reference:
    """The model's own answers, and what is needed to understand others'."""

    questions: Sequence[Question]
    answers: Sequence[Answer]
    tokenizer: Any
    ends: frozenset[int]
    rounding: Rounding
    new_tokens: int
    """That an answer has at most."""

    @property
    def bos(self) -> str:
        """Text of the token that begins a prompt."""
        return str(self.tokenizer.bos_token or "")

    @property
    def end_texts(self) -> list[str]:
        """The tokens that end an answer, as text."""
        return [str(self.tokenizer.convert_ids_to_tokens(number)) for number in sorted(self.ends)]


def load_tokenizer(model: Path) -> Any:
    """The tokenizer of a model folder, as whoever loads the result gets it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, local_files_only=True)


def light_tokenizer(model: Path) -> Any:
    """One that renders, decodes and knows its special tokens as well, and takes a third of the memory: it needs no torch."""
    if not (model / "tokenizer.json").is_file():
        return load_tokenizer(model)
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(model, local_files_only=True)


def render(tokenizer: Any, messages: Sequence[Any]) -> str:
    """A conversation as the model is asked with it."""
    return str(tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True))


def prompt_of(tokenizer: Any, question: Question) -> tuple[str, list[int]]:
    """What the model is asked with, as text and as tokens."""
    prompt = render(tokenizer, question.messages) if question.messages else question.text
    return prompt, tokenizer(prompt, add_special_tokens=not question.messages)["input_ids"]


def positions_of(model: Path) -> int | None:
    """How many tokens a model folder takes at once; None where its configuration does not say."""
    config = json.loads((model / "config.json").read_text())
    text = config.get("text_config") or config
    found = text.get("max_position_embeddings", text.get("n_positions"))
    return found if isinstance(found, int) and found > 0 else None


def answers_of(model: Path, questions: Sequence[Question]) -> Reference:
    """Ask the model itself, in a process of its own."""
    answers, ends = apart(said_by, model, questions)
    return reference_with(model, questions, answers, ends)


def reference_with(
    model: Path, questions: Sequence[Question], answers: Sequence[Answer], ends: Iterable[int]
) -> Reference:
    """Of answers that are known."""
    most = longest_answer(positions_of(model))
    return Reference(questions, answers, light_tokenizer(model), frozenset(ends), Rounding(model), most)


def said_by(model: Path, questions: Sequence[Question]) -> tuple[list[Answer], frozenset[int]]:
    """Its answers, and the tokens that end one."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = load_tokenizer(model)
    network = load(model)
    ends = frozenset(end_ids(model)) | frozenset(end_tokens(tokenizer))
    most = longest_answer(positions_of(model))
    how = greedy(
        max_new_tokens=most,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0),
    )
    found = []
    for question in questions:
        prompt, ids = prompt_of(tokenizer, question)
        with torch.inference_mode():
            given = torch.tensor([ids])
            made = network.generate(given, attention_mask=torch.ones_like(given), generation_config=how)
        said = made[0, len(ids) :].tolist()
        ended = bool(said) and said[-1] in ends
        plain = tuple(said[:-1] if ended else said)
        found.append(Answer(prompt, plain, tokenizer.decode(plain), ended, prompt_ids=tuple(ids)))
    return found, ends
