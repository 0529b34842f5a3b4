"""Direct preference optimization: raise the chosen answer over the rejected one, relative to the model as it was.

With r(y) = log p(y) - log p_reference(y), summed over the answer's tokens, and d = r(chosen) - r(rejected):

    sigmoid   -log sigmoid(beta d)                                   Rafailov et al. 2023, arXiv 2305.18290
    hinge     max(0, 1 - beta d)                                     Zhao et al. 2023, arXiv 2305.10425
    ipo       (d' - 1 / (2 beta))^2, d' of r per token               Azar et al. 2023, arXiv 2310.12036
    robust    sigmoid, where a share of the labels may be wrong      Chowdhury et al. 2024, arXiv 2403.00409

`loss_type`, `loss_weights`, `beta` and `label_smoothing` mean what they mean in TRL's DPOConfig.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.methods.pairs import PairLoss, Scores

LOSS_TYPES = ("sigmoid", "hinge", "ipo", "robust")
FIELD = "spec.training.extraArgs"


@dataclass(frozen=True)
class DpoSettings:
    """The extra arguments that are DPO's own."""

    beta: float = 0.1
    loss_type: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] = (1.0,)
    label_smoothing: float = 0.0


def dpo_settings(extra: dict[str, Any]) -> DpoSettings:
    """From checked extra arguments.

    Raises:
        UserError: a value has no meaning.
    """
    types = tuple(extra.get("loss_type", ("sigmoid",)))
    weights = tuple(extra.get("loss_weights") or (1.0,) * len(types))
    settings = DpoSettings(extra.get("beta", 0.1), types, weights, extra.get("label_smoothing", 0.0))
    if unknown := [name for name in types if name not in LOSS_TYPES]:
        raise invalid_config(f"{FIELD}.loss_type: {unknown[0]!r} is not offered", hint=f"use {', '.join(LOSS_TYPES)}")
    if not types or len(weights) != len(types):
        raise invalid_config(
            f"{FIELD}.loss_weights: {len(weights)} weights for {len(types)} loss types", hint="give one for each"
        )
    if settings.beta <= 0:
        raise invalid_config(f"{FIELD}.beta {settings.beta} is not above 0", hint="the usual value is 0.1")
    if not 0 <= settings.label_smoothing < 0.5:
        raise invalid_config(
            f"{FIELD}.label_smoothing {settings.label_smoothing} is not in 0..0.5 (without 0.5)",
            hint="it is the share of wrong labels, for loss_type robust; leave it out otherwise",
        )
    if settings.label_smoothing and "robust" not in types:
        raise invalid_config(f"{FIELD}.label_smoothing has an effect only with loss_type robust", hint="remove it")
    return settings


def dpo_loss(settings: DpoSettings) -> PairLoss:
    """The weighted sum of the chosen losses."""
    beta, smoothing = settings.beta, settings.label_smoothing

    def loss_of(name: str, scores: Scores, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        difference = chosen - rejected
        match name:
            case "sigmoid":
                return -logsigmoid(beta * difference)
            case "hinge":
                return torch.relu(1 - beta * difference)
            case "ipo":
                per_token = chosen / scores.chosen_tokens.clamp(min=1) - rejected / scores.rejected_tokens.clamp(min=1)
                return (per_token - 1 / (2 * beta)) ** 2
            case _:
                right, wrong = logsigmoid(beta * difference), logsigmoid(-beta * difference)
                return -((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)

    def pair_loss(scores: Scores) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen = scores.chosen - scores.reference_chosen
        rejected = scores.rejected - scores.reference_rejected
        parts = [
            weight * loss_of(name, scores, chosen, rejected)
            for name, weight in zip(settings.loss_type, settings.loss_weights, strict=True)
        ]
        return torch.stack(parts).sum(dim=0), preference_metrics(beta * chosen, beta * rejected, scores)

    return pair_loss


def preference_metrics(chosen: torch.Tensor, rejected: torch.Tensor, scores: Scores) -> dict[str, torch.Tensor]:
    """TRL's metrics of a pair, from the rewards of its answers [pairs]."""
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": scores.chosen,
        "logps/rejected": scores.rejected,
    }
