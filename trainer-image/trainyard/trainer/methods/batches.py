"""From prepared sequences to batches of tensors, in an order that can be continued anywhere.

The order of an epoch is a permutation drawn from the seed and the epoch's number, nothing else: no state to save, and the
n-th batch of an epoch is the same whether the process has just started or has run for a week.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.machine.team import ALONE, Team

TOKEN_COUNT = "token_count"
"""Key in a batch for the number of real tokens, which the model must not see."""
BLANK = -1
"""Index of a sequence without labels."""


class SequenceDataset(Dataset[dict[str, Any]]):
    """torch's view of `Sequences`."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences

    def unpacked(self) -> SequenceDataset:
        """One example per sequence."""
        return SequenceDataset(self._sequences.unpacked())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence; whoever has this is probed with its longest batch before training."""
        return self._sequences.lengths

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sequence; with BLANK its first one without labels, for a process that has nothing to do in a step."""
        row: dict[str, Any] = dict(self._sequences[max(0, int(index))])
        if index == BLANK:
            row["labels"] = np.full_like(row["labels"], IGNORED)
            row[TOKEN_COUNT] = 0
        return row


class EpochOrder(Sampler[int]):
    """A new permutation for each epoch. accelerate's loader calls `set_epoch` before it iterates.

    Of several processes, each takes its share of every micro-batch of `batch` sequences a process. Together they see the
    same sequences between two optimizer steps as one process with as many times the accumulation. Where an epoch ends with
    less than a share for each, who has none gets a blank.
    """

    def __init__(self, length: int, seed: int, *, batch: int = 1, team: Team = ALONE) -> None:
        self._length = length
        self._seed = seed
        self._batch = batch
        self._team = team
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        together = self._batch * self._team.size
        whole, rest = divmod(self._length, together)
        mine = min(max(rest - self._team.rank * self._batch, 1), self._batch) if rest else 0
        return whole * self._batch + mine

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._length).tolist()
        if self._team.size == 1:
            yield from order
            return
        for start in range(0, self._length, self._batch * self._team.size):
            mine = start + self._team.rank * self._batch
            yield from order[mine : mine + self._batch] or [BLANK]


def collate(padding_id: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Batches of int64 [sequences, longest]: input_ids, labels, position_ids, and the count of real tokens.

    There is no attention mask: position ids that start again tell the model where an example ends, and the padding behind
    the last one is an example of its own that nothing attends to.
    """

    def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), longest)
        input_ids = np.full(shape, padding_id, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        position_ids = np.zeros(shape, dtype=np.int64)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            input_ids[number, :length] = row["input_ids"]
            labels[number, :length] = row["labels"]
            position_ids[number, :length] = row["position_ids"]
            position_ids[number, length:] = np.arange(longest - length)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(position_ids),
            TOKEN_COUNT: sum(row.get(TOKEN_COUNT, len(row["input_ids"])) for row in rows),
        }

    return batch


def keeps_examples_apart(model: Any, *, vocab_size: int, device: str) -> bool:
    """Whether packing is safe for this model: does an example get the same logits alone and behind another one?

    Architectures with recurrent or convolutional layers, and those that ignore position ids, let examples see each other.
    Three forward passes over a dozen tokens find out.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, vocab_size, (1, 7), generator=generator)
    second = torch.randint(0, vocab_size, (1, 6), generator=generator)
    other = torch.randint(0, vocab_size, (1, 7), generator=generator)
    positions = torch.cat([torch.arange(7), torch.arange(6)])[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():

        def tail(head: torch.Tensor) -> torch.Tensor:
            ids = torch.cat([head, second], dim=1).to(device)
            logits: torch.Tensor = model(input_ids=ids, position_ids=positions.to(device), use_cache=False).logits
            return logits[0, 7:].float()

        alone = (
            model(input_ids=second.to(device), position_ids=torch.arange(6)[None].to(device), use_cache=False)
            .logits[0]
            .float()
        )
        behind_one, behind_other = tail(first), tail(other)
    model.train(was_training)
    scale = float(alone.abs().max())
    leak = float((behind_one - behind_other).abs().max())
    shift = float((behind_one - alone).abs().max())
    tolerance = 1e-4 if alone.dtype == torch.float32 and next(model.parameters()).dtype == torch.float32 else 5e-2
    return leak <= tolerance * max(scale, 1e-3) and shift <= tolerance * max(scale, 1e-3)
