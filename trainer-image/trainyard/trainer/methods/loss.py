"""Next-token loss, the quicker way for the size at hand.

TRL's fused output head never holds the logits of a batch, which decides over fitting into memory with a vocabulary of a
quarter of a million entries, and pays for that (and for metrics beside the loss) with passes over every tile. Where the
logits are small anyway, one matrix product and torch's own cross entropy take half the time.
"""

from __future__ import annotations

from typing import Any

import torch

from trainyard.trainer.data.store import IGNORED

SMALL_LOGITS = 256 * 1024 * 1024
"""Bytes of a batch's logits in FP32 up to which they are made as a whole."""


def logits_are_small(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether the whole logits of this batch are no burden."""
    vocab_size = model.get_output_embeddings().weight.shape[0]
    return bool(inputs["input_ids"].numel() * vocab_size * 4 <= SMALL_LOGITS)


def sum_of_losses(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Negative log-likelihood, summed over the tokens that count."""
    others = {name: value for name, value in inputs.items() if name != "labels"}
    logits = model(**others, use_cache=False).logits
    # Shifting the labels instead of the logits saves a copy of the large one of the two.
    targets = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def token_log_probs(model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of each next token, [rows, positions - 1] in FP32; 0 where it does not count.

    The model needs TRL's fused output head (see `add_output_head`) for batches whose logits would be large.
    """
    if not logits_are_small(model, {"input_ids": input_ids}):
        log_probs: torch.Tensor = model(input_ids=input_ids, labels=labels, fused_lm_head=True).log_probs
        return log_probs
    logits = model(input_ids=input_ids, use_cache=False).logits
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view_as(targets)[:, :-1]
