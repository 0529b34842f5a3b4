"""Running a network on examples without learning: what it answers, how sure it is, whether that is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.fit import attention_mask
from trainyard.trainer.trm.folder import Draw, Split
from trainyard.trainer.trm.losses import IGNORED
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.stream import take


class Stopped(Exception):
    """A stop signal came in between two batches."""


@dataclass(frozen=True)
class Answers:
    """`ids` [examples, length]; `confidence` is the halting head's logit; `solved` and `right` (share of tokens) compare
    with the labels; all after the last iteration."""

    ids: NDArray[np.int64]
    confidence: NDArray[np.float32]
    solved: NDArray[np.bool_]
    right: NDArray[np.float64]

    @property
    def exact(self) -> float:
        """Share of examples that are right in every labelled token."""
        return float(self.solved.mean())


@torch.no_grad()
def answer(
    network: Network,
    draw: Draw,
    *,
    device: torch.device,
    iterations: int | None = None,
    masked: int | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Answers and halting logits of one batch. `noise` is the deviation of what is added to the latents before each
    iteration after the first."""
    inputs = torch.from_numpy(draw.inputs).to(device)
    x = network.embed(inputs, network.puzzle_embedding[torch.from_numpy(draw.puzzles).to(device)])
    mask = None if masked is None else attention_mask(inputs, network.shape, padding=masked)
    weights = network.weights()
    latent = network.start(len(draw))
    for number in range(iterations or network.shape.max_iterations):
        if noise and number:
            latent = type(latent)(
                *(t + noise * torch.randn(t.shape, generator=generator).to(t.device, t.dtype) for t in latent)
            )
        latent, logits, halting = network.step(latent, x, mask=mask, weights=weights)
    return logits.argmax(-1).t().cpu().numpy(), halting[:, 0].float().cpu().numpy()


def measure(
    network: Network,
    split: Split,
    *,
    device: torch.device,
    batch: int,
    limit: int | None = None,
    masked: int | None = None,
) -> Answers:
    """Answer a whole split, or its first `limit` examples.

    Raises:
        Stopped: the process was told to stop.
    """
    count = min(len(split), limit or len(split))
    parts = []
    for first in range(0, count, batch):
        if STOP.requested:
            raise Stopped
        draw = take(split, np.arange(first, min(first + batch, count)))
        ids, confidence = answer(network, draw, device=device, masked=masked)
        parts.append(compared(ids, confidence, draw.labels))
    return Answers(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("ids", "confidence", "solved", "right")))


def compared(ids: NDArray[np.int64], confidence: NDArray[np.float32], labels: NDArray[np.int64]) -> Answers:
    """Answers beside their labels."""
    counts = labels != IGNORED
    right = ((ids == labels) & counts).sum(1)
    asked = counts.sum(1)
    return Answers(ids, confidence, right == asked, right / np.maximum(asked, 1))
