"""Two optimizers and an average.

All weights are trained by AdamW. A puzzle embedding's row gets a gradient only when its puzzle is in the batch, which with
thousands of rows is rare; moments would then hold stale directions, so it goes by the sign of the gradient alone, and only
the rows that were used are touched. Results are those of the exponential moving average of the weights, which for this
kind of model is worth several points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)


def adamw(network: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over all parameters in one fused call per step."""
    return torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=BETAS, weight_decay=weight_decay, fused=True)


@torch.no_grad()
def sign_step(table: Tensor, rows: Tensor, gradients: Tensor, *, learning_rate: float, weight_decay: float) -> None:
    """Move the used rows of a table by the sign of their summed gradients.

    Args:
        table: [puzzles, features], changed in place.
        rows: [examples], row of each example; a row may occur more than once.
        gradients: [examples, features].
    """
    used, place = torch.unique(rows, return_inverse=True)
    summed = torch.zeros(len(used), table.shape[1], dtype=gradients.dtype, device=gradients.device)
    summed.index_add_(0, place, gradients)
    moved = table[used] * (1 - learning_rate * weight_decay) - learning_rate * summed.sign().to(table.dtype)
    table[used] = moved


def scheduled(step: int, *, total: int, warmup: float, kind: str) -> float:
    """Share of the learning rate at a step, from 0. `warmup` is a number of steps, or below 1 a share of all."""
    ramp = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    if kind != "constant" and step < ramp:
        return (step + 1) / ramp
    done = (step - ramp) / max(1, total - ramp)
    match kind:
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case _:
            return 1.0


class Average:
    """Exponential moving average of a network's parameters and of its puzzle embedding."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self._live = trained_tensors(network)
        self.values = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step, counted from 0. Early on the average forgets faster, or the random start would stay in it."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), [t.detach() for t in self._live.values()], 1 - decay)


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Everything that training changes, by name."""
    return dict(network.named_parameters()) | {
        name: buffer for name, buffer in network.named_buffers() if name == "puzzle_embedding"
    }
