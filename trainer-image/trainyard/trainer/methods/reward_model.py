"""Training a reward model: one number for a prompt with its answer, higher for the chosen of two (Bradley and Terry 1952; Ouyang et
al. 2022, arXiv 2203.02155).

    -log sigmoid(s(chosen) - s(rejected))  +  center_rewards_coefficient (s(chosen) + s(rejected))^2

The second term, with TRL's name, keeps scores near zero (Eisenstein et al. 2023, arXiv 2312.09244); without the argument it is left
out. The model is a sequence-classification model with one output. The score is read at the last token of the answer that counts,
which is where method PPO reads it: rows are padded at the end, so nothing that follows has a say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from trainyard.trainer.data.store import IGNORED
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.methods.dpo import FIELD
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.pairs import PairLoss, Scores


def center_coefficient(extra: dict[str, Any]) -> float:
    """From checked extra arguments; 0 leaves the term out.

    Raises:
        UserError: it is negative.
    """
    coefficient = float(extra.get("center_rewards_coefficient") or 0.0)
    if coefficient < 0:
        raise invalid_config(
            f"{FIELD}.center_rewards_coefficient {coefficient} is negative", hint="a usual value is 0.01"
        )
    return coefficient


def reward_loss(coefficient: float) -> PairLoss:
    """See the module's text."""

    def pair_loss(scores: Scores) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        margin = scores.chosen - scores.rejected
        losses = -logsigmoid(margin)
        if coefficient:
            losses = losses + coefficient * (scores.chosen + scores.rejected) ** 2
        return losses, {
            "rewards/chosen": scores.chosen,
            "rewards/rejected": scores.rejected,
            "rewards/margins": margin,
            "rewards/accuracies": (margin > 0).float(),
        }

    return pair_loss


def scorer(device: str, dtype: torch.dtype) -> Callable[[Any, Batch], Scores]:
    """Scores of a batch of pairs, one number each."""

    def score(model: Any, inputs: Batch) -> Scores:
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        counts = inputs["labels"] != IGNORED
        positions = torch.arange(counts.shape[1], device=counts.device)
        last = (counts * positions).argmax(dim=1)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            hidden = inner.base_model(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
            found = inner.score(hidden[torch.arange(len(last), device=last.device), last])
        chosen, rejected = found.float().squeeze(-1).chunk(2)
        return Scores(chosen, rejected, *counts.sum(dim=1).chunk(2), *inputs["reference"].chunk(2))

    return score
