"""Next-token loss, the quickest way for the model and the machine at hand.

On a CPU in FP32 the head goes over the counted positions in tiles (`counted_head.py`). Elsewhere their logits are made as a whole
where they are small; where they are not, TRL's fused head, which has a kernel for it, never holds them.
"""

from __future__ import annotations

from typing import Any

import torch

from trainyard.trainer.data.store import IGNORED
from trainyard.trainer.methods.counted_head import goes_in_tiles, head_of, logits_of, tiled_log_probs

SMALL_LOGITS = 256 * 1024 * 1024
"""Bytes of a batch's logits in FP32 up to which they are made as a whole."""


def has_a_quick_way(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether the losses of this batch need no fused head of TRL's."""
    if goes_in_tiles(model):
        return True
    entries = head_of(model).weight.shape[0]
    return bool((inputs["labels"][:, 1:] != IGNORED).sum() * entries * 4 <= SMALL_LOGITS)


def sum_of_losses(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Negative log-likelihood, summed over the tokens that count.

    The model needs TRL's fused output head (see `add_output_head`) for batches that have no quick way.
    """
    log_probs, _ = counted_log_probs(model, inputs, uniform=True)
    return -log_probs.sum()


def token_log_probs(model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of each next token, [rows, positions - 1] in FP32; 0 where it does not count. As `sum_of_losses` otherwise."""
    log_probs, counted = counted_log_probs(model, {"input_ids": input_ids, "labels": labels})
    return log_probs.new_zeros(counted.shape).masked_scatter(counted, log_probs)[:, :-1]


def counted_log_probs(
    model: Any, inputs: dict[str, Any], *, uniform: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the tokens that count [counted], and which positions tell them [rows, positions]. `uniform`: all of
    them will have the same gradient, as in a sum."""
    others = {name: value for name, value in inputs.items() if name != "labels"}
    # Shifting the labels instead of the logits saves a copy of the large one of the two.
    targets = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    counted = targets != IGNORED
    if goes_in_tiles(model):
        return tiled_log_probs(model, others, counted, targets[counted], uniform=uniform), counted
    if not has_a_quick_way(model, inputs):
        found: torch.Tensor = model(**inputs, fused_lm_head=True).log_probs
        return found[counted[:, :-1]], counted
    logits = logits_of(model, others, counted).float()
    return -torch.nn.functional.cross_entropy(logits, targets[counted], reduction="none"), counted
