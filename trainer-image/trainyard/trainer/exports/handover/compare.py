"""Two lists of answers to the same questions: are they the same, and if not, is it said in a way that shows where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from trainyard.trainer.errors import UserError, invalid_config
from trainyard.trainer.exports.handover.answer import Answer, Question
from trainyard.trainer.exports.handover.reference import Reference

SHOWN = 160
"""Characters of a text in a message, around the place where it parts from the other."""


@dataclass(frozen=True)
class Agreement:
    """How far two programs say the same."""

    questions: int
    tokens: int
    """That the reference has said in all, each answer up to where the other parted from it counting as equal."""
    equal: int
    ties: int
    """Answers that part where two tokens are so close that rounding decides; not counted where fewer bits are expected to part."""

    @property
    def share(self) -> float:
        """Of tokens up to where answers part."""
        return self.equal / self.tokens if self.tokens else 1.0

    def facts(self) -> dict[str, str]:
        """For the record of an export."""
        return {"agreement": f"{self.share:.4f}", "questions": str(self.questions), "ties": str(self.ties)}


@dataclass(frozen=True)
class Bar:
    """What is asked of a comparison."""

    name: str
    """Who is compared, e.g. `spec.exports[local].gguf: model-f16.gguf`."""
    exact: bool
    """Whether tokens have to be equal; fewer bits may answer otherwise, and the share is told."""
    hears: Callable[[Sequence[int]], str] | None = None
    """What the program makes of tokens, where it tells nothing but text."""


def compare(reference: Reference, found: Sequence[Answer], *, bar: Bar) -> Agreement:
    """Hold a program's answers against the model's own.

    Raises:
        UserError: a prompt is rendered otherwise, an answer does not end where it should, or (exact) says something else.
    """
    equal = ties = tokens = 0
    for question, one, other in zip(reference.questions, reference.answers, found, strict=True):
        _check_prompt(question, one, other, bar, bos=reference.bos)
        place = _parting(one.ids, other.ids)
        tokens += len(one.ids)
        equal += place
        parted = place < max(len(one.ids), len(other.ids))
        tie = bar.exact and parted and is_tie(reference, one, other, place, hears=bar.hears)
        ties += tie
        if bar.exact and parted and not tie:
            raise _fault(
                bar,
                f"answers {question.shown[:SHOWN]!r} with {_around(other.text, one.text)!r} instead of "
                f"{_around(one.text, other.text)!r} (parts at token {place + 1} of {len(one.ids)})",
                hint="the file computes something else than the trained model; report it with the model's config.json",
            )
        if one.ended and not parted and not other.ended:
            raise _fault(
                bar,
                f"does not end its answer to {question.shown[:SHOWN]!r}: {other.text[-SHOWN:]!r} goes on where "
                f"{one.text[-SHOWN:]!r} ends",
                hint="the file names no end of an answer; set eos_token_id in the base's config.json",
            )
    return Agreement(questions=len(found), tokens=tokens, equal=equal, ties=ties)


def _check_prompt(question: Question, one: Answer, other: Answer, bar: Bar, *, bos: str) -> None:
    same = other.prompt in (one.prompt, one.prompt.removeprefix(bos))
    if question.messages and not same:
        raise _fault(
            bar,
            f"renders the chat as {_around(other.prompt, one.prompt)!r} instead of {_around(one.prompt, other.prompt)!r}",
            hint="its chat template is not the model's; see chat_template.jinja in model/",
        )
    if one.prompt_ids is not None and other.prompt_ids is not None and one.prompt_ids != other.prompt_ids:
        place = _parting(one.prompt_ids, other.prompt_ids)
        raise _fault(
            bar,
            f"cuts {question.shown[:SHOWN]!r} into other tokens: {list(other.prompt_ids[place : place + 8])} instead of "
            f"{list(one.prompt_ids[place : place + 8])} from token {place + 1} on",
            hint="its tokenizer is not the model's (pre-tokenizer, special tokens, or a token that begins each text)",
        )
    count = len(one.prompt_ids) if one.prompt_ids is not None else None
    if count is not None and other.prompt_count is not None and count != other.prompt_count:
        raise _fault(
            bar,
            f"makes {other.prompt_count} tokens of a prompt that has {count}: {one.prompt[-SHOWN:]!r}",
            hint="its template or its tokenizer is not the model's",
        )


def is_tie(
    reference: Reference,
    one: Answer,
    other: Answer,
    place: int,
    *,
    hears: Callable[[Sequence[int]], str] | None,
) -> bool:
    """Whether the model itself is undecided between its own token at `place` and the other's.

    Where the other program tells no tokens, the first one that differs may stand before the first letter that does.
    """
    undecided = reference.rounding.undecided(one)
    if hears is None:
        said = {other.ids[place]} if place < len(other.ids) else reference.ends
        return not undecided[place].isdisjoint(said)
    for count in range(place, -1, -1):
        for instead in undecided[count] - set(one.ids[count : count + 1]):
            if instead in reference.ends:
                if other.ended and hears(one.ids[:count]).strip() == other.text.strip():
                    return True
            elif other.text.lstrip().startswith(hears((*one.ids[:count], instead)).lstrip()):
                return True
    return False


def _parting(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _around(text: str, other: str) -> str:
    """The part of a text in which it differs from the other, with what stands before it."""
    same = SequenceMatcher(None, text, other, autojunk=False).find_longest_match()
    start = max(0, (same.size if same.a == same.b == 0 else 0) - SHOWN // 2)
    return text[start : start + SHOWN]


def _fault(bar: Bar, message: str, *, hint: str) -> UserError:
    return invalid_config(f"{bar.name} {message}", hint=hint)
