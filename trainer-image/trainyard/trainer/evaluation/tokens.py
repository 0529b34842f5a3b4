"""What the model thinks of each held-out example: the loss of its tokens, and how many it would have said itself.

Sequences pass through as they are packed, so this costs what the loss alone costs; what belongs to which example is told
apart afterwards. Where the logits of a batch would be large they are never held as a whole (see `methods/loss.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.methods.batches import TOKEN_COUNT, collate
from trainyard.trainer.methods.counted_head import head_of, hidden_of, is_plain, tiles
from trainyard.trainer.methods.loss import counted_log_probs


@dataclass(frozen=True)
class TokenScores:
    """Per example: the sum of the losses of its tokens that count, how many these are, and how many are the likeliest."""

    loss: NDArray[np.float64]
    tokens: NDArray[np.int64]
    right: NDArray[np.int64] | None


def score_tokens(
    model: Any,
    sequences: Sequences,
    *,
    batch_size: int,
    padding_id: int,
    device: str,
    dtype: torch.dtype,
    likeliest: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenScores:
    """Of all examples. `progress` is told how many sequences of how many are done."""
    make_batch, examples = collate(padding_id), len(sequences.starts) - 1
    loss, tokens = np.zeros(examples), np.zeros(examples, dtype=np.int64)
    right = np.zeros(examples, dtype=np.int64) if likeliest else None
    lengths = np.diff(sequences.starts)
    with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        for start in range(0, len(sequences), batch_size):
            numbers = range(start, min(start + batch_size, len(sequences)))
            batch = make_batch([sequences[i] for i in numbers])
            batch.pop(TOKEN_COUNT)
            inputs = {name: tensor.to(device) for name, tensor in batch.items()}
            losses, hits = _of_batch(model, inputs, likeliest)
            counts = (inputs["labels"] != IGNORED).cpu().numpy()
            for row, number in enumerate(numbers):
                items = sequences.items[sequences.offsets[number] : sequences.offsets[number + 1]]
                edges = np.concatenate([[0], np.cumsum(lengths[items])])
                inside = slice(0, int(edges[-1]))
                loss[items] = np.add.reduceat(losses[row, inside], edges[:-1])
                tokens[items] = np.add.reduceat(counts[row, inside].astype(np.int64), edges[:-1])
                if right is not None and hits is not None:
                    right[items] = np.add.reduceat(hits[row, inside].astype(np.int64), edges[:-1])
            progress(numbers.stop, len(sequences))
    return TokenScores(loss, tokens, right)


def _of_batch(
    model: Any, inputs: dict[str, torch.Tensor], likeliest: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Loss and hit of each token [rows, positions], at the place of the token itself; 0 where it does not count."""
    others = {name: value for name, value in inputs.items() if name != "labels"}
    targets = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    counted, said = targets != IGNORED, None
    if not likeliest:
        log_probs, _ = counted_log_probs(model, inputs)
    elif is_plain(model):
        log_probs, said = _both(head_of(model), hidden_of(model, others, counted), targets[counted])
    else:  # what these models do to their logits afterwards (a cap, a scale) changes no order
        log_probs, _ = counted_log_probs(model, inputs)
        _, said = _both(head_of(model), hidden_of(model, others, counted), targets[counted])
    hits = None if said is None else _at(counted, said == targets[counted])
    return _at(counted, -log_probs.double()), hits


def _both(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the targets and the likeliest entries [counted], without all logits at a time."""
    log_probs, said = hidden.new_empty(len(hidden), dtype=torch.float32), torch.empty_like(targets)
    for rows in tiles(len(hidden), len(head.weight)):
        logits = head(hidden[rows]).float()
        log_probs[rows] = -torch.nn.functional.cross_entropy(logits, targets[rows], reduction="none")
        said[rows] = logits.argmax(-1)
    return log_probs, said


def _at(counted: torch.Tensor, values: torch.Tensor) -> Any:
    """Values [counted] at the places of the tokens themselves [rows, positions], one behind the position that tells each."""
    placed = values.new_zeros(counted.shape).masked_scatter(counted, values)
    return torch.nn.functional.pad(placed[:, :-1], (1, 0)).cpu().numpy()
