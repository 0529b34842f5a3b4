"""Kahneman-Tversky optimization: learn from answers that were found good or bad, one by one (Ethayarajh et al. 2024, arXiv
2402.01306).

With r(y) = log p(y) - log p_reference(y), summed over the answer's tokens, and z, how far the model has moved on the whole:

    kto                   good: w_d (1 - sigmoid(beta (r - z)))    bad: w_u (1 - sigmoid(beta (z - r)))
    apo_zero_unpaired     good: w_d (1 - sigmoid(beta r))          bad: w_u sigmoid(beta r)         D'Oosterlinck et al. 2024, 2408.06266

z is the mean of r over answers to other prompts, not below zero, and no gradient goes through it. It is taken over the whole
optimizer step, with dropout off, so that it does not depend on the size of a micro-batch. Each answer's prompt has one answer
of another record for this, which the seed decides once for the run, so that the reference of it can be computed beforehand as
that of the answers themselves. `loss_type`, `beta`, `desirable_weight` and `undesirable_weight` mean what they mean in TRL's
KTOConfig; there the other answer is that of the neighbour in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.methods.batches import TOKEN_COUNT
from trainyard.trainer.methods.dpo import FIELD
from trainyard.trainer.methods.loss import token_log_probs
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.pairs import collate_pairs, moved

LOSS_TYPES = ("kto", "apo_zero_unpaired")
MISMATCHES = 4
"""Stream of random numbers that is drawn from the run's seed."""
Z = "z"
"""Key in a batch for how far the model has moved on the whole."""


@dataclass(frozen=True)
class KtoSettings:
    """The extra arguments that are KTO's own."""

    beta: float = 0.1
    loss_type: str = "kto"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @property
    def compares(self) -> bool:
        """Whether the loss has z in it."""
        return self.loss_type == "kto"


def kto_settings(extra: dict[str, Any]) -> KtoSettings:
    """From checked extra arguments.

    Raises:
        UserError: a value has no meaning.
    """
    own = {name: extra[name] for name in KtoSettings.__dataclass_fields__ if name in extra}
    settings = KtoSettings(**own)
    if settings.loss_type not in LOSS_TYPES:
        raise invalid_config(
            f"{FIELD}.loss_type: {settings.loss_type!r} is not offered", hint=f"use {' or '.join(LOSS_TYPES)}"
        )
    if settings.beta <= 0:
        raise invalid_config(f"{FIELD}.beta {settings.beta} is not above 0", hint="the usual value is 0.1")
    for name in ("desirable_weight", "undesirable_weight"):
        if getattr(settings, name) < 0:
            raise invalid_config(f"{FIELD}.{name} {getattr(settings, name)} is negative", hint="the usual value is 1")
    return settings


def kto_losses(settings: KtoSettings, ratios: torch.Tensor, good: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The loss of each answer [answers]; `ratios` is r of each, `good` whether it was found so, `z` one number."""
    beta = settings.beta
    if settings.compares:
        right, wrong = 1 - torch.sigmoid(beta * (ratios - z)), 1 - torch.sigmoid(beta * (z - ratios))
    else:
        right, wrong = 1 - torch.sigmoid(beta * ratios), torch.sigmoid(beta * ratios)
    return torch.where(good, settings.desirable_weight * right, settings.undesirable_weight * wrong)


class Mismatched:
    """A split of judged answers, each with its prompt under another record's answer, as `Sequences` has pairs."""

    def __init__(self, sequences: Sequences, *, seed: int, max_length: int) -> None:
        self._sequences = sequences
        self._max_length = max_length
        order = np.random.default_rng([seed, MISMATCHES]).permutation(len(sequences))
        self._other = np.empty(len(sequences), dtype=np.int64)
        self._other[order] = np.roll(order, -1)

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each answer with its prompt."""
        return self._sequences.lengths

    def good(self, index: int) -> bool:
        """Whether the answer was found good."""
        return self._sequences.good(index)

    def parts(self, index: int) -> list[dict[str, NDArray[np.int64]]]:
        """The answer with its prompt, and the prompt with another answer, cut at the same length."""
        (own,), (other,) = self._sequences.parts(index), self._sequences.parts(int(self._other[index]))
        prompt, answer = _begin_of_answer(own), _begin_of_answer(other)
        mixed = {
            "input_ids": np.concatenate([own["input_ids"][:prompt], other["input_ids"][answer:]]),
            "labels": np.concatenate([own["labels"][:prompt], other["labels"][answer:]]),
        }
        return [own, {name: values[: self._max_length] for name, values in mixed.items()}]


def _begin_of_answer(example: dict[str, NDArray[np.int64]]) -> int:
    return int((example["labels"] != IGNORED).argmax())


class AnswerDataset(Dataset[Batch]):
    """torch's view of judged answers. `reference` [answers, 2] is of each answer and of the other answer to its prompt."""

    def __init__(self, answers: Mismatched, reference: NDArray[np.float32]) -> None:
        self._answers = answers
        self._reference = reference

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each answer; see `SequenceDataset.lengths`."""
        return self._answers.lengths

    def __getitem__(self, index: int) -> Batch:
        own, mixed = self._answers.parts(int(index))
        reference = np.asarray(self._reference[int(index)], dtype=np.float32)
        return {"chosen": own, "rejected": mixed, "reference": reference, "good": self._answers.good(int(index))}


def collate_answers(padding_id: int) -> Callable[[list[Batch]], Batch]:
    """Batches as of pairs, with the other answers in the place of the rejected ones, and good, bool [answers]."""
    pairs = collate_pairs(padding_id)

    def batch(rows: list[Batch]) -> Batch:
        tokens = sum(len(row["chosen"]["input_ids"]) for row in rows)
        return {**pairs(rows), "good": torch.tensor([row["good"] for row in rows]), TOKEN_COUNT: tokens}

    return batch


class KtoObjective:
    """The method, as `CommittingTrainer` wants it."""

    def __init__(
        self,
        settings: KtoSettings,
        *,
        held_out: AnswerDataset | None,
        collate: Callable[[list[Batch]], Batch],
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self._settings = settings
        self._held_out = held_out
        self._collate = collate
        self._device = device
        self._dtype = dtype

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        """The same batches, with z of all of them in each."""
        count = sum(len(batch["good"]) for batch in given)
        total = torch.zeros((), dtype=torch.float64)
        if self._settings.compares:
            was_training = model.training
            model.eval()
            for batch in given:
                total += self._ratios(model, moved(batch, self._device), 1).double().sum().cpu()
            model.train(was_training)
        z = (total / max(count, 1)).clamp(min=0).float()
        for batch in given:
            batch[Z] = z.to(batch["input_ids"].device)
        return given, count

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        ids, labels, reference = _half(inputs, 0)
        log_probs = token_log_probs(model, ids, labels).sum(dim=1)
        ratios, good = log_probs - reference, inputs["good"]
        losses = kto_losses(self._settings, ratios, good, inputs[Z])
        metrics = kto_metrics(self._settings.beta * ratios.detach(), log_probs.detach(), good)
        return losses.sum() / (items or len(losses)), metrics | {"kl": inputs[Z].detach()}

    def evaluate(
        self, model: Any, *, batch_size: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Means over the held-out answers; z is taken over all of them."""
        assert self._held_out is not None
        columns: dict[str, list[torch.Tensor]] = {"ratios": [], "log_probs": [], "good": [], "others": []}
        count = len(self._held_out)
        for start in range(0, count, batch_size):
            rows = [self._held_out[n] for n in range(start, min(start + batch_size, count))]
            batch = moved(self._collate(rows), self._device)
            own = self._ratios(model, batch, 0)
            columns["ratios"].append(own)
            columns["log_probs"].append(own + _half(batch, 0)[2])
            columns["good"].append(batch["good"])
            if self._settings.compares:
                columns["others"].append(self._ratios(model, batch, 1))
            progress(start + len(rows), count)
        found = {name: torch.cat(parts).cpu() for name, parts in columns.items() if parts}
        ratios, good = found["ratios"].double(), found["good"]
        z = found["others"].double().mean().clamp(min=0) if "others" in found else ratios.new_zeros(())
        losses = kto_losses(self._settings, ratios, good, z)
        metrics = {"loss": losses.mean(), "kl": z}
        metrics |= kto_metrics(self._settings.beta * ratios, found["log_probs"].double(), good)
        return {name: float(value) for name, value in metrics.items()}

    def write(self, folder: Path) -> None:
        """Nothing: the reference lies on the volume already."""

    def _ratios(self, model: Any, batch: Batch, half: int) -> torch.Tensor:
        """r of the answers (0) or of the other answers to their prompts (1), without gradient."""
        ids, labels, reference = _half(batch, half)
        with torch.no_grad(), torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32):
            return token_log_probs(model, ids, labels).sum(dim=1).float() - reference


def _half(batch: Batch, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, labels, reference = (batch[name].chunk(2)[number] for name in ("input_ids", "labels", "reference"))
    longest = int((labels != IGNORED).any(dim=0).nonzero().max()) + 1
    return ids[:, :longest], labels[:, :longest], reference


def kto_metrics(rewards: torch.Tensor, log_probs: torch.Tensor, good: torch.Tensor) -> dict[str, torch.Tensor]:
    """TRL's metrics, of the kinds of answers that are there."""
    metrics = {}
    for name, of_kind in (("chosen", good), ("rejected", ~good)):
        if of_kind.any():
            metrics[f"rewards/{name}"] = rewards[of_kind].mean()
            metrics[f"logps/{name}"] = log_probs[of_kind].mean()
    if good.any() and not good.all():
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
    return metrics
