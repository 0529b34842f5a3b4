"""What rounding alone can change in an answer: measured, for one model at each token of one of its answers.

    prompt + answer -> logits as the reference computes them ┐
                    -> logits of the same model at f16       ┴ how far logits move -> which tokens are undecided

An exported file at f16 adds in another order and with fewer bits than transformers. Where two tokens are closer than that moves
logits, either is right; how far it moves them depends on the model and on the place, so no fixed number would do: one large
activation makes it a hundred times more, and in a model that has hardly learned anything half the vocabulary is that close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.trainer.exports.handover.answer import Answer
from trainyard.trainer.exports.handover.network import at_f16, is_small, load
from trainyard.trainer.machine.apart import apart

SIDES = 2
"""Of the two tokens that change places one may have moved up as far as the other moved down."""


@dataclass
class Rounding:
    """Of a model folder. Nothing is loaded before an answer is asked about, and most never are."""

    model: Path
    _known: dict[tuple[int, ...], list[frozenset[int]]] = field(default_factory=dict)

    def undecided(self, answer: Answer) -> Sequence[frozenset[int]]:
        """At each token of the model's own answer, and after the last one: the tokens that could as well have been said."""
        assert answer.prompt_ids is not None
        ids = (*answer.prompt_ids, *answer.ids)
        if ids not in self._known:
            self._known[ids] = apart(undecided_at, self.model, ids, len(answer.prompt_ids) - 1)
        return self._known[ids]


def undecided_at(model: Path, ids: Sequence[int], start: int) -> list[frozenset[int]]:
    """At each token from `start` on. One network is in memory at a time."""
    import torch

    given = torch.tensor([ids])

    def of(network: Any) -> Any:
        with torch.inference_mode():
            return network(input_ids=given).logits[0, start:].float()

    network = load(model)
    exact = of(network)
    if is_small(model):
        rounded = of(at_f16(network))
    else:
        del network
        rounded = of(load(model, "float16"))
    return [frozenset(_close(one, other)) for one, other in zip(exact, rounded, strict=True)]


def _close(exact: Any, rounded: Any) -> list[int]:
    """Tokens not further below the likeliest one than rounding moves two logits [vocabulary] apart."""
    import torch

    moved = rounded - exact
    moved = moved - moved.median()  # what moves all of them moves none
    within = SIDES * float(torch.nan_to_num(moved.abs(), nan=float("inf")).max())
    return [int(number) for number in (exact >= exact.max() - within).nonzero().flatten()]
