"""Loss and perplexity over held-out sequences.

The mean is over all tokens that count, not over batches, so it does not depend on the batch size. Large logits are never held
as a whole (`methods/loss.py`): with a vocabulary of a quarter of a million entries that is the difference between 1 GB and 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.methods.batches import TOKEN_COUNT, collate
from trainyard.trainer.methods.loss import sum_of_losses


@dataclass(frozen=True)
class HeldOut:
    """What was measured."""

    loss: float
    tokens: int
    """Tokens that counted."""

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that is beyond a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def measure(
    model: Any,
    sequences: Sequences,
    *,
    batch_size: int,
    padding_id: int,
    device: str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> HeldOut:
    """Mean negative log-likelihood per token. `progress` is told how many sequences of how many are done."""
    make_batch = collate(padding_id)
    total, count = 0.0, 0
    with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        for start in range(0, len(sequences), batch_size):
            rows = [sequences[i] for i in range(start, min(start + batch_size, len(sequences)))]
            batch = make_batch(rows)
            batch.pop(TOKEN_COUNT)
            inputs = {name: tensor.to(device) for name, tensor in batch.items()}
            total += float(sum_of_losses(model, inputs))
            count += int((inputs["labels"][:, 1:] != IGNORED).sum())
            progress(start + len(rows), len(sequences))
    return HeldOut(total / max(count, 1), count)
