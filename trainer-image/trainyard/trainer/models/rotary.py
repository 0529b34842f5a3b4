"""Rotary position embedding as one operation, on a CPU in FP32.

    y = x cos + rotate(x) sin        rotate(a, b) = (-b, a) for the two halves of a head

Written out, as the architectures have it, the rotated copy is put together from negated halves, and the way back fills a tensor of
zeros for each half. Here each half is added in place.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

NAME = "apply_rotary_pos_emb"
"""In each architecture's module; its attention looks it up there at each call."""


class _Rotated(torch.autograd.Function):
    """See the module's text. x [rows, heads, positions, size]; cos and sin broadcast to it, and have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half, result = x.shape[-1] // 2, x * cos
        result[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        result[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        given = outer[0]
        half, result = given.shape[-1] // 2, given * cos
        result[..., half:].addcmul_(given[..., :half], sin[..., :half], value=-1)
        result[..., :half].addcmul_(given[..., half:], sin[..., half:])
        return result, None, None


def quicken_rotation(model: Any) -> bool:
    """Let the architecture of `model` rotate the quick way where it may. Returns whether it does.

    Architectures have functions of that name that do other things, so it is tried out on a few numbers.
    """
    modules = {type(layer).__module__ for layer in model.modules()}
    found = False
    for module in (sys.modules[name] for name in modules if hasattr(sys.modules.get(name), NAME)):
        original = getattr(module, NAME)
        if getattr(original, "quick", False):
            found = True
        elif _is_plain(original):
            setattr(module, NAME, _quick(original))
            found = True
    return found


def _quick(original: Any) -> Any:
    def rotate(q: Any, k: Any, cos: Any, sin: Any, *arguments: Any, **named: Any) -> Any:
        others = arguments or named
        if others or not all(_fits(x, cos) for x in (q, k)) or cos.requires_grad or torch.is_autocast_enabled("cpu"):
            return original(q, k, cos, sin, *arguments, **named)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return _Rotated.apply(q, cos, sin), _Rotated.apply(k, cos, sin)

    rotate.quick = True  # type: ignore[attr-defined]
    return rotate


def _fits(x: torch.Tensor, cos: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == cos.dtype == torch.float32 and x.shape[-1] == cos.shape[-1]


def _is_plain(original: Any) -> bool:
    q, k = torch.linspace(-1, 1, 96).view(1, 2, 6, 8), torch.linspace(2, -3, 48).view(1, 1, 6, 8)
    cos, sin = torch.linspace(0, 3, 48).view(1, 6, 8).cos(), torch.linspace(1, 5, 48).view(1, 6, 8).sin()
    try:
        wanted = original(q, k, cos, sin)
    except (TypeError, RuntimeError, ValueError):  # takes something else
        return False
    found = _quick(original)(q, k, cos, sin)
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))
