"""Weights that are no numbers, found before the first step: later every loss is none, and nothing says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainyard.trainer.errors import invalid_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse_broken_weights(model: PreTrainedModel, uri: str) -> None:
    """Look through a model that is about to be trained.

    Raises:
        UserError: a weight is not a number, or infinite.
    """
    import torch

    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            count = int((~torch.isfinite(weight)).sum())
            if count:  # a sum may be too large for its type
                raise invalid_config(
                    f"spec.model.storageUri {uri}: {count} of {weight.numel():,} weights in {name} are not finite numbers",
                    hint="the model is damaged: copy it again, or take another one",
                )
