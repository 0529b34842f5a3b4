"""Root mean square normalisation as one operation, on a CPU in FP32.

    y = w x / sqrt(mean(x^2) + eps)

Written out, as the architectures have it, it goes over the hidden states a dozen times, forward and back, and keeps two more copies
of them for the way back. Here x and one number a row are kept. The values are the same but for the order of roundings.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

TOLERANCE = 1e-5


class _Normed(torch.autograd.Function):
    """See the module's text. x [..., hidden], scale [hidden]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, root)
        return torch.mul(x, root).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        x, scale, root = ctx.saved_tensors
        given = outer[0]
        of_x = of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = (given * x).mul_(root).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            of_x = given * scale
            along = torch.linalg.vecdot(of_x, x).unsqueeze(-1).mul_(root.pow(3)).div_(-x.shape[-1])
            of_x.mul_(root).addcmul_(x, along)
        return of_x, of_scale, None


def quicken_norms(model: Any) -> int:
    """Let each such layer take the quick way where it may. Returns how many there are.

    Which layers normalise this way, and whether the weight counts from zero or from one, is tried out on a few numbers.
    """
    found = 0
    for layer in model.modules():
        if (offset := _offset_of(layer)) is not None:
            layer.forward = MethodType(_forward, layer)
            layer._trainyard_offset = offset
            found += 1
    return found


def _eps_of(layer: Any) -> float | None:
    return next(
        (float(v) for n in ("variance_epsilon", "eps") if isinstance(v := getattr(layer, n, None), float)), None
    )


def _offset_of(layer: Any) -> float | None:
    """What is added to the weight, or None for a layer of another kind."""
    weight, eps = getattr(layer, "weight", None), _eps_of(layer)
    if not type(layer).__name__.endswith("RMSNorm") or eps is None or weight is None or weight.dim() != 1:
        return None
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    x = torch.linspace(-2, 3, 2 * len(weight)).view(2, -1)
    with torch.no_grad():
        wanted = layer(x)
        for offset in (0.0, 1.0):
            if torch.allclose(_Normed.apply(x, weight + offset, eps), wanted, rtol=TOLERANCE, atol=TOLERANCE):
                return offset
    return None


def _forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    if (
        hidden_states.device.type != "cpu"
        or not hidden_states.dtype == self.weight.dtype == torch.float32
        or torch.is_autocast_enabled("cpu")
    ):
        slow: torch.Tensor = type(self).forward(self, hidden_states)
        return slow
    scale = self.weight + self._trainyard_offset if self._trainyard_offset else self.weight
    quick: torch.Tensor = _Normed.apply(hidden_states, scale, _eps_of(self))
    return quick
