"""Which mapping a set of problems and solutions asks for, and whether it is one that such a network can learn.

The answer of a Tiny Recursive Model has a fixed length and a closed vocabulary, so its tasks are those where the solution
comes from something closed:

    Label      one of few solutions                          alert -> team
    Codebook   one of few, once names are taken out          alert -> "restart <pod1>"
    Extract    words of the problem, and a fixed template    log line -> host, port
    Repair     the problem itself, some characters changed   config line -> corrected line

Anything else is free text. The published attempts at that are negative, or leak the answer into the input; it is refused
with the numbers that say why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainyard.trainer.errors import invalid_data
from trainyard.trainer.trm.entities import Names

TextTask = Literal["Label", "Codebook", "Extract", "Repair", "FreeForm"]
MOST_LABELS = 256
MOST_CODES = 4096
TEMPLATE_SHARE = 0.5
"""A word that stands in so many solutions belongs to their template."""
_WORD = re.compile(r"<\w+>|\w+|[^\w\s]")


@dataclass(frozen=True)
class TextExample:
    """One record with its names taken out."""

    problem: str
    draft: str
    """The initial answer, if the record has one."""
    solution: str
    names: Names
    raw_problem: str
    raw_solution: str

    @property
    def group(self) -> bytes:
        """Equal for problems that differ only in names and white space."""
        return " ".join(re.sub(r"<(\w+?)\d>", r"<\1>", self.problem).lower().split()).encode()

    @property
    def line(self) -> str:
        """What is repaired."""
        return self.draft_raw or self.raw_problem

    draft_raw: str = ""


def read_example(problem: str, draft: str, solution: str) -> TextExample:
    """Take the names out of all three texts, consistently."""
    names = Names()
    return TextExample(
        problem=names.take_out(problem),
        draft=names.take_out(draft),
        solution=names.take_out_known(solution),
        names=names,
        raw_problem=problem,
        raw_solution=solution,
        draft_raw=draft,
    )


def choose(wanted: str, examples: Sequence[TextExample], *, experimental: bool) -> TextTask:
    """The task that the training examples allow.

    Raises:
        UserError: the wanted one does not fit, or none does.
    """
    reasons = {task: _refusal(task, examples) for task in ("Label", "Codebook", "Repair", "Extract")}
    if wanted == "FreeForm":
        return "FreeForm"  # the API has asked for experimental already
    if wanted == "Auto":
        fitting = [task for task, reason in reasons.items() if reason is None]
        if fitting:
            return fitting[0]  # type: ignore[return-value]
        if experimental:
            return "FreeForm"
        raise invalid_data(
            "the solutions are free text, which a Tiny Recursive Model cannot learn: "
            + "; ".join(f"{task}: {reason}" for task, reason in reasons.items()),
            hint="restrict the solutions, train a language model on them (method SFT), or set spec.training.trm.experimental: "
            "true to try it anyway",
        )
    if (reason := reasons[wanted]) is not None:
        others = [task for task, r in reasons.items() if r is None]
        raise invalid_data(
            f"spec.training.trm.task {wanted} does not fit the data: {reason}",
            hint=f"{', '.join(others)} would fit" if others else "task Auto says for each task why not",
        )
    return wanted  # type: ignore[return-value]


def template_words(examples: Sequence[TextExample]) -> set[str]:
    """Words that most solutions share."""
    seen = Counter(word for e in examples for word in set(_WORD.findall(e.solution)))
    return {word for word, count in seen.items() if count >= TEMPLATE_SHARE * len(examples)}


def _refusal(task: str, examples: Sequence[TextExample]) -> str | None:
    """Why a task does not fit; None if it does."""
    match task:
        case "Label":
            return _too_many({e.raw_solution for e in examples}, "different solutions", MOST_LABELS, len(examples))
        case "Codebook":
            found = {e.solution for e in examples}
            return _too_many(found, "different solutions without names", MOST_CODES, len(examples))
        case "Repair":
            other = sum(len(e.line.encode()) != len(e.raw_solution.encode()) for e in examples)
            return (
                f"{other} of {len(examples)} solutions are longer or shorter than what they repair" if other else None
            )
        case _:
            template = template_words(examples)
            strange = 0
            for e in examples:
                known = set(_WORD.findall(e.problem)) | template
                strange += any(word not in known for word in _WORD.findall(e.solution))
            return f"{strange} of {len(examples)} solutions have words that their problem lacks" if strange else None


def _too_many(found: set[str], what: str, most: int, examples: int) -> str | None:
    if len(found) > most:
        return f"{len(found)} {what}, at most {most} are learned"
    if len(found) * 2 > examples:
        return f"{len(found)} {what} in {examples} records, so most are never seen twice"
    return None
