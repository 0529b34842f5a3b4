"""Odds ratio preference optimization: learn the chosen answer and, in the same step, disprefer the rejected one. It needs
no reference (Hong et al. 2024, arXiv 2403.07691).

With log p(y), the mean over the answer's tokens, and odds(y) = p(y) / (1 - p(y)), the loss of a pair is

    -log p(chosen)  -  beta log sigmoid(log odds(chosen) - log odds(rejected))

`beta` is the paper's lambda and the name in TRL's ORPOConfig. As in the paper, the first term is of the answer alone and a
mean per pair; TRL takes it over prompt and answer and over all tokens of a batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.methods.dpo import FIELD, preference_metrics
from trainyard.trainer.methods.pairs import PairLoss, Scores

LARGEST = -1e-7
"""Log-probabilities above this are taken as this: odds of a certain answer are infinite."""


def orpo_beta(extra: dict[str, Any]) -> float:
    """From checked extra arguments.

    Raises:
        UserError: it is negative.
    """
    beta = float(extra.get("beta", 0.1))
    if beta < 0:
        raise invalid_config(f"{FIELD}.beta {beta} is negative", hint="the usual value is 0.1")
    return beta


def orpo_loss(beta: float) -> PairLoss:
    """See the module's text."""

    def pair_loss(scores: Scores) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen = scores.chosen.float() / scores.chosen_tokens.clamp(min=1)
        rejected = scores.rejected.float() / scores.rejected_tokens.clamp(min=1)
        log_odds = _log_odds(chosen) - _log_odds(rejected)
        metrics = preference_metrics(beta * chosen, beta * rejected, replace(scores, chosen=chosen, rejected=rejected))
        metrics |= {"nll_loss": -chosen, "log_odds_ratio": logsigmoid(log_odds), "log_odds_chosen": log_odds}
        return -chosen - beta * logsigmoid(log_odds), metrics

    return pair_loss


def _log_odds(log_probs: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) without loss of digits near p = 0 and p = 1."""
    bounded = log_probs.clamp(max=LARGEST)
    return bounded - torch.log(-torch.expm1(bounded))
