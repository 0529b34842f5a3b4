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
from functools import cached_property
from pathlib import Path
from typing import Any

from trainyard.trainer.exports.handover.answer import Answer

SMALL = 4_000_000_000
"""Parameters up to which a model is run in f32, whose rounding no other program's is below."""
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
            start = len(answer.prompt_ids) - 1
            exact, rounded = (logits[start:] for logits in self._logits(ids))
            self._known[ids] = [frozenset(_close(one, other)) for one, other in zip(exact, rounded, strict=True)]
        return self._known[ids]

    def _logits(self, ids: Sequence[int]) -> tuple[Any, Any]:
        """As the reference and at f16, each [tokens, vocabulary] in f32."""
        import torch

        given = torch.tensor([ids])
        with torch.inference_mode():
            return tuple(network(input_ids=given).logits[0].float() for network in self._networks)

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        return load(self.model), at_f16(load(self.model)) if is_small(self.model) else load(self.model, "float16")


def is_small(model: Path) -> bool:
    """Whether f32 is within reach."""
    return sum(f.stat().st_size for f in model.glob("*.safetensors")) < 2 * SMALL


def load(model: Path, dtype: str | None = None) -> Any:
    """The network of a model folder; in f32 where that is within reach."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    wanted = dtype or ("float32" if is_small(model) else "auto")
    return AutoModelForCausalLM.from_pretrained(model, config=config, dtype=wanted, local_files_only=True).eval()


def at_f16(network: Any) -> Any:
    """The same network in f32, with all that enters or leaves a product rounded to f16: this is how llama.cpp computes, and many
    times faster on a CPU than products of f16."""
    import torch

    most = torch.finfo(torch.float16).max

    def rounded(value: Any) -> Any:
        return (
            value.clamp(-most, most).half().float() if torch.is_tensor(value) and value.is_floating_point() else value
        )

    for part in network.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim == 2 and not isinstance(part, torch.nn.Embedding):
            part.register_forward_pre_hook(lambda _, given: tuple(map(rounded, given)))
            part.register_forward_hook(lambda _, given, made: rounded(made))
    for parameter in network.parameters():
        parameter.data = rounded(parameter.data)
    return network


def _close(exact: Any, rounded: Any) -> list[int]:
    """Tokens not further below the likeliest one than rounding moves two logits [vocabulary] apart."""
    import torch

    moved = rounded - exact
    moved = moved - moved.median()  # what moves all of them moves none
    within = SIDES * float(torch.nan_to_num(moved.abs(), nan=float("inf")).max())
    return [int(number) for number in (exact >= exact.max() - within).nonzero().flatten()]
