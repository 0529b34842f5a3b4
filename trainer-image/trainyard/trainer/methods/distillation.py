"""Distillation: at every token of an answer, the distribution of a teacher instead of the token (Agarwal et al. 2023, arXiv 2306.13649).

With P the teacher's and Q the own distribution, both at the same temperature, and M = beta P + (1 - beta) Q:

    beta 0         KL(P || Q)                                     forward: everything that the teacher might say
    beta 1         KL(Q || P)                                     reverse: nothing that the teacher would not say
    in between     beta KL(P || M) + (1 - beta) KL(Q || M)        generalised Jensen-Shannon divergence

summed over the counted tokens of the step and divided by their number, as TRL's GKD has it. The answers are those of the data.

A teacher by address is loaded beside the model, and both see the same batch. Its head and the model's go over the counted
positions in tiles, and a tile's logits are made once more on the way back, so that they are never held as a whole. Of a
teacher on a server the prepare step has kept the likeliest tokens of each position (`data/teacher.py`); all others count as one
outcome, on both sides, so that what is minimised is the divergence of what is known. Where every entry is known it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.data.teacher import Told
from trainyard.trainer.methods.batches import TOKEN_COUNT, SequenceDataset, collate
from trainyard.trainer.methods.counted_head import head_of, hidden_of, is_plain, logits_of, tiles
from trainyard.trainer.methods.distillation_config import DistillationConfig
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.pairs import moved

IDS, LOG_PROBS = "teacher_ids", "teacher_log_probs"
"""Keys in a batch for what a server has told, [rows, positions, top]: token ids, -1 where there are fewer, and log-probabilities."""
NOTHING = -100.0
"""Logarithm that stands for a probability of none: finite, so that none times it is none."""
AGREEMENT = "teacher/agreement"
"""Metric: of the counted tokens, the share at which the likeliest token is the teacher's."""


def divergences(own: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """[positions], from log-probabilities [positions, outcomes] of both."""
    if beta == 0:
        return _kl(teacher, own)
    if beta == 1:
        return _kl(own, teacher)
    mixed = torch.logaddexp(teacher + np.log(beta), own + np.log1p(-beta))
    return beta * _kl(teacher, mixed) + (1 - beta) * _kl(own, mixed)


def _kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.exp() * (one - other)).sum(dim=-1)


def of_known(logits: torch.Tensor, ids: torch.Tensor, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of both over the same outcomes [positions, top + 1]: the tokens `ids` [positions, top], and any other.

    `logits` [positions, vocabulary] are the own ones, `log_probs` [positions, top] the teacher's.
    """
    there = ids >= 0
    log_probs = torch.where(there, log_probs, NOTHING)
    rest = torch.log1p(-log_probs.exp().sum(dim=-1, keepdim=True).clamp(max=1.0)).clamp(min=NOTHING)
    whole = torch.logsumexp(logits, dim=-1, keepdim=True)
    own = torch.where(there, logits.gather(-1, ids.clamp(min=0)) - whole, NOTHING)
    entries = logits.shape[-1]
    known = logits.new_zeros(len(logits), entries + 1, dtype=torch.bool)
    known = known.scatter_(-1, torch.where(there, ids, entries), True)[:, :entries]
    others = logits.masked_fill(known, float("-inf"))
    own_rest = torch.where(known.all(dim=-1, keepdim=True), NOTHING, torch.logsumexp(others, -1, keepdim=True) - whole)
    return torch.cat([own, own_rest.clamp(min=NOTHING)], dim=-1), torch.cat([log_probs, rest], dim=-1)


class TaughtDataset(SequenceDataset):
    """Sequences with what a server has told about them."""

    def __init__(self, sequences: Sequences, told: Told) -> None:
        super().__init__(sequences)
        self._told = told

    def unpacked(self) -> TaughtDataset:
        return TaughtDataset(self._sequences.unpacked(), self._told)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        places = self._sequences.places(max(0, int(index)))
        row[IDS] = np.concatenate([self._told.ids[place] for place in places]).astype(np.int64)
        row[LOG_PROBS] = np.concatenate([self._told.log_probs[place] for place in places])
        return row


def collate_taught(padding_id: int) -> Callable[[list[Batch]], Batch]:
    """Batches as of sequences, with what a server has told where it has."""
    plain = collate(padding_id)

    def batch(rows: list[Batch]) -> Batch:
        made = plain(rows)
        if IDS in rows[0]:
            shape = (*made["input_ids"].shape, rows[0][IDS].shape[1])
            ids, log_probs = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32)
            for number, row in enumerate(rows):
                ids[number, : len(row[IDS])] = row[IDS]
                log_probs[number, : len(row[IDS])] = row[LOG_PROBS]
            made |= {IDS: torch.from_numpy(ids), LOG_PROBS: torch.from_numpy(log_probs)}
        return made

    return batch


class DistillationObjective:
    """The method, as `CommittingTrainer` wants it. `teacher` is the model, None where a server has been asked."""

    def __init__(
        self,
        settings: DistillationConfig,
        *,
        teacher: Any,
        held_out: SequenceDataset | None,
        collate: Callable[[list[Batch]], Batch],
        entries: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        """`entries` of both vocabularies are compared; rows of an embedding beyond those of the tokenizer stand for nothing."""
        self._settings = settings
        self._teacher = teacher
        self._held_out = held_out
        self._collate = collate
        self._entries = entries
        self._device = device
        self._dtype = dtype

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        """The same, and the number of tokens that count."""
        return given, sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in given)

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, agreeing, count = self._summed(model, inputs)
        return total / max(1, items or count), {AGREEMENT: agreeing / max(1, count)}

    def evaluate(
        self, model: Any, *, batch_size: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Means over the held-out tokens."""
        assert self._held_out is not None
        total, agreeing, counted, count = 0.0, 0.0, 0, len(self._held_out)
        for start in range(0, count, batch_size):
            rows = [self._held_out[n] for n in range(start, min(start + batch_size, count))]
            batch = moved(self._collate(rows), self._device)
            with torch.no_grad(), torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32):
                found = self._summed(model, batch)
            total, agreeing, counted = total + float(found[0]), agreeing + float(found[1]), counted + found[2]
            progress(start + len(rows), count)
        return {"loss": total / max(1, counted), AGREEMENT: agreeing / max(1, counted)}

    def write(self, folder: Path) -> None:
        """Nothing: a teacher does not change."""

    def _summed(self, model: Any, inputs: Batch) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Sum of the divergences, number of tokens at which both agree, number of tokens."""
        others = {name: value for name, value in inputs.items() if name not in ("labels", IDS, LOG_PROBS, TOKEN_COUNT)}
        counted = torch.nn.functional.pad(inputs["labels"][:, 1:] != IGNORED, (0, 1))
        own = _Head(model, others, counted, self._entries)
        if self._teacher is None:
            # What is told about a token stands with it, and its distribution is made at the one before.
            ids, log_probs = inputs[IDS].roll(-1, dims=1)[counted], inputs[LOG_PROBS].roll(-1, dims=1)[counted]
            teacher = None
        else:
            with torch.no_grad():
                teacher = _Head(self._teacher, others, counted, self._entries)
        total, agreeing = own.start, torch.zeros((), device=own.start.device)

        def tile(rows: slice, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = own.logits(values) / self._settings.temperature
            if teacher is None:
                both = of_known(logits, ids[rows], log_probs[rows])
                likeliest = ids[rows, 0]
            else:
                with torch.no_grad():
                    wanted = torch.log_softmax(
                        teacher.logits(teacher.values[rows]) / self._settings.temperature, dim=-1
                    )
                both, likeliest = (torch.log_softmax(logits, dim=-1), wanted), wanted.argmax(dim=-1)
            return divergences(*both, self._settings.beta).sum(), (logits.argmax(dim=-1) == likeliest).sum()

        for rows in tiles(len(own.values), self._entries):
            if torch.is_grad_enabled():
                part, agree = checkpoint(tile, rows, own.values[rows], use_reentrant=False)
            else:
                part, agree = tile(rows, own.values[rows])
            total, agreeing = total + part, agreeing + agree
        return total, agreeing.detach(), len(own.values)


class _Head:
    """A model up to its head at the counted positions, or with it where the head's result is changed afterwards."""

    def __init__(self, model: Any, inputs: Batch, counted: torch.Tensor, entries: int) -> None:
        self._head, self._entries = (head_of(model) if is_plain(model) else None), entries
        made = hidden_of if self._head is not None else logits_of
        self.values = made(model, inputs, counted)
        """[counted, hidden], or [counted, vocabulary]."""
        self.start = self.values.sum() * 0.0
        """Zero, with a way back also where nothing counts."""

    def logits(self, values: torch.Tensor) -> torch.Tensor:
        """[rows, entries] in FP32."""
        if self._head is not None:
            values = torch.nn.functional.linear(values, self._head.weight, self._head.bias)
        return values.float()[:, : self._entries]
