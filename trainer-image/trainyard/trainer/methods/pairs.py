"""Pairs of answers, one preferred to the other: their batches, their log-probabilities, and those of the reference.

A batch holds its chosen answers first and its rejected ones behind them, each with its prompt, one row each. Rows are
padded at the end, which causal attention never looks at, so there is no mask.

The reference is the model as it was at the start. Its log-probabilities never change, so they are computed once, before
training, and kept on the volume: no second model takes memory while training, and each further epoch costs a third less. A
process that is killed in between goes on with the first batch that is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from trainyard.trainer.data.store import IGNORED
from trainyard.trainer.methods.batches import TOKEN_COUNT
from trainyard.trainer.methods.loss import token_log_probs
from trainyard.trainer.methods.objective import Batch

REFERENCE_BATCH = 8
"""Pairs; fixed, because the last bits of a result depend on the shape of its batch."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of the answers of a batch of pairs, each [pairs]: summed over the answer's tokens. Or the scores of a
    reward model."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor


PairLoss = Callable[[Scores], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""The loss of each pair [pairs], and metrics of each pair."""


class Pairs(Protocol):
    """Two examples each, by number: `Sequences` of preferences."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each."""
        ...

    def parts(self, index: int) -> list[dict[str, NDArray[np.int64]]]:
        """The two examples."""
        ...


class PairDataset(Dataset[Batch]):
    """torch's view of preferences. `reference` [pairs, 2] is 0 for methods that need none."""

    def __init__(self, sequences: Pairs, reference: NDArray[np.float32] | None = None) -> None:
        self._sequences = sequences
        self._reference = reference

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair; see `SequenceDataset.lengths`."""
        return self._sequences.lengths

    def __getitem__(self, index: int) -> Batch:
        chosen, rejected = self._sequences.parts(int(index))
        reference = (0.0, 0.0) if self._reference is None else self._reference[int(index)]
        return {"chosen": chosen, "rejected": rejected, "reference": np.asarray(reference, dtype=np.float32)}


def collate_pairs(padding_id: int) -> Callable[[list[Batch]], Batch]:
    """Batches: input_ids and labels int64 [2 * pairs, longest], reference float32 [2 * pairs], the count of real tokens."""

    def batch(rows: list[Batch]) -> Batch:
        answers = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
        shape = (len(answers), max(len(answer["input_ids"]) for answer in answers))
        input_ids = np.full(shape, padding_id, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        for number, answer in enumerate(answers):
            length = len(answer["input_ids"])
            input_ids[number, :length] = answer["input_ids"]
            labels[number, :length] = answer["labels"]
        reference = np.stack([row["reference"] for row in rows]).T.reshape(-1).copy()
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "reference": torch.from_numpy(reference),
            TOKEN_COUNT: sum(len(answer["input_ids"]) for answer in answers),
        }

    return batch


def scores_of(model: Any, inputs: Batch) -> Scores:
    """Run the model over a batch of pairs."""
    log_probs = token_log_probs(model, inputs["input_ids"], inputs["labels"]).sum(dim=1)
    tokens = (inputs["labels"][:, 1:] != IGNORED).sum(dim=1)
    return Scores(*log_probs.chunk(2), *tokens.chunk(2), *inputs["reference"].chunk(2))


class PairObjective:
    """A method that is told entirely by the loss of one pair."""

    def __init__(
        self,
        pair_loss: PairLoss,
        *,
        held_out: PairDataset | None,
        collate: Callable[[list[Batch]], Batch],
        device: str,
        dtype: torch.dtype,
        scores: Callable[[Any, Batch], Scores] = scores_of,
    ) -> None:
        """`scores` is what the loss is made of, where that is not the answers' log-probabilities."""
        self._pair_loss = pair_loss
        self._scores = scores
        self._held_out = held_out
        self._collate = collate
        self._device = device
        self._dtype = dtype

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        return given, sum(len(batch["input_ids"]) // 2 for batch in given)

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses, metrics = self._pair_loss(self._scores(model, inputs))
        return losses.sum() / (items or len(losses)), {name: values.detach().mean() for name, values in metrics.items()}

    def evaluate(
        self, model: Any, *, batch_size: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Means over the held-out pairs."""
        assert self._held_out is not None
        sums: dict[str, float] = {}
        count = len(self._held_out)
        for start in range(0, count, batch_size):
            rows = [self._held_out[n] for n in range(start, min(start + batch_size, count))]
            with torch.no_grad(), torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32):
                losses, metrics = self._pair_loss(self._scores(model, moved(self._collate(rows), self._device)))
            for name, values in {"loss": losses, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(values.double().sum())
            progress(start + len(rows), count)
        return {name: total / count for name, total in sums.items()}

    def write(self, folder: Path) -> None:
        """Nothing: the reference lies on the volume already."""


def reference_log_probs(
    file: Path,
    sequences: Pairs,
    order: NDArray[np.int64],
    *,
    load: Callable[[], Any],
    padding_id: int,
    device: str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Log-probabilities of chosen and rejected answers under the reference, [pairs, 2], memory-mapped from `file`.

    Args:
        file: where they are kept; made if it is not there. What is not computed yet is NaN in it.
        order: the pairs that are needed.
        load: the reference; called only if something is missing.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".tmp-{file.name}")
        with open(temporary, "wb") as stream:
            np.save(stream, np.full((len(sequences), 2), np.nan, dtype=np.float32))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(file)
    table = np.load(file, mmap_mode="r+")
    model, pairs, collate = None, PairDataset(sequences), collate_pairs(padding_id)
    for start in range(0, len(order), REFERENCE_BATCH):
        chunk = order[start : start + REFERENCE_BATCH]
        if not np.isnan(table[chunk]).any():
            continue
        model = model if model is not None else load()
        with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            scores = scores_of(model, moved(collate([pairs[n] for n in chunk]), device))
        table[chunk] = torch.stack([scores.chosen, scores.rejected], dim=1).float().cpu().numpy()
        progress(start + len(chunk), len(order))
    table.flush()
    return table  # type: ignore[no-any-return]


def moved(batch: Batch, device: str) -> Batch:
    """The tensors of a batch on a device, without its count of tokens."""
    return {name: value.to(device) for name, value in batch.items() if name != TOKEN_COUNT}
