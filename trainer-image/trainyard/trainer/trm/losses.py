"""What a supervision step is judged by.

Each example counts once: its loss is the mean over its own labelled tokens, plus half the cross entropy of "is the whole
answer right?", which the halting head has to foresee.

Stablemax replaces the exponential of softmax by something that grows linearly: s(x) = x + 1 for x >= 0 and 1 / (1 - x)
below. The gain is that a sure answer keeps a gradient. It is computed in 64 bits for tiny vocabularies, where that costs
nothing; for a text vocabulary 64-bit temporaries would be gigabytes, and a GeForce computes them at 1/64 of its rate, so
those use 32 bits. With many symbols it learns slowly, since what is spread over them all shrinks only linearly; Auto takes
softmax there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""Label of a position that does not count."""
TINY_VOCABULARY = 64
Loss = Literal["StableMax", "SoftMax"]


class Judgement(NamedTuple):
    """`loss` is a sum over the examples; the others are per example."""

    loss: Tensor
    answer_loss: Tensor
    right_tokens: Tensor
    """Share of the labelled tokens."""
    solved: Tensor
    """Whether all of them are right."""


def choose_loss(wanted: Literal["Auto", "StableMax", "SoftMax"], vocab_size: int) -> Loss:
    """The loss for so many symbols."""
    if wanted == "Auto":
        return "StableMax" if vocab_size <= TINY_VOCABULARY else "SoftMax"
    return wanted


def judge(logits: Tensor, halting: Tensor, labels: Tensor, *, loss: Loss) -> Judgement:
    """Loss and correctness.

    Args:
        logits: [sequence, examples, vocabulary].
        halting: [examples, 2]; the first column is "the answer is right".
        labels: [examples, sequence], IGNORED where nothing is asked.
    """
    labels = labels.t()
    counts = labels != IGNORED
    targets = torch.where(counts, labels, 0)
    per_token = token_losses(logits, targets, loss=loss)
    asked = counts.sum(0).clamp(min=1)
    answer_loss = (per_token * counts).sum(0) / asked
    with torch.no_grad():
        right = (logits.argmax(-1) == targets) & counts
        right_tokens = right.sum(0) / asked
        solved = right.sum(0) == counts.sum(0)
    halting_loss = F.binary_cross_entropy_with_logits(halting[:, 0], solved.to(halting.dtype), reduction="sum")
    return Judgement(answer_loss.sum() + 0.5 * halting_loss, answer_loss.detach(), right_tokens, solved)


def token_losses(logits: Tensor, targets: Tensor, *, loss: Loss) -> Tensor:
    """Negative log-likelihood per token, [sequence, examples]."""
    if loss == "SoftMax":
        flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return flat.view(targets.shape)
    wide = logits.double() if logits.shape[-1] <= TINY_VOCABULARY else logits.float()
    growth = torch.where(wide < 0, 1 / (1 - wide.clamp(max=0)), wide + 1)
    chosen = growth.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return growth.sum(-1).log() - chosen.log()
