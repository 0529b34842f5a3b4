"""Two small functions with their derivatives written out, because they decide the speed.

A Tiny Recursive Model on a CPU spends as much time in element-wise work as in matrix products: its matrices are small, and
autograd's own formulas write several copies of every activation. These two keep the fewest values for the way back, reuse
their buffers, and compute in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _ResidualNorm(torch.autograd.Function):
    """y = (a + b) / rms(a + b) along one dimension, without weights."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, dim: int, epsilon: float) -> Tensor:
        total = a + b
        scale = _inverse_rms(total, dim, epsilon)
        total.mul_(scale)
        ctx.save_for_backward(total, scale)
        ctx.dim = dim
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (given,) = gradients
        y, scale = ctx.saved_tensors
        # dx = (g - y * mean(g * y)) / rms
        dx = given * y
        mean = dx.mean(ctx.dim, keepdim=True)
        torch.mul(y, mean, out=dx)
        torch.sub(given, dx, out=dx)
        dx.mul_(scale)
        return dx, dx, None, None


class _Gate(torch.autograd.Function):
    """silu(gate) * up, where gate and up are the two halves of one tensor along `dim`."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, dim: int) -> Tensor:
        gate, up = both.chunk(2, dim)
        ctx.save_for_backward(both)
        ctx.dim = dim
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (given,) = gradients
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, ctx.dim)
        result = torch.empty_like(both)
        d_gate, d_up = result.chunk(2, ctx.dim)
        torch.mul(given, torch.nn.functional.silu(gate), out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(given * up, gate))
        return result, None


def residual_norm(a: Tensor, b: Tensor, *, dim: int, epsilon: float) -> Tensor:
    """Root-mean-square norm of a + b along `dim`; 16-bit inputs are summed up in 32 bits."""
    if a.dtype.itemsize < 4:
        total = (a + b).float()
        return (total * torch.rsqrt(total.square().mean(dim, keepdim=True) + epsilon)).to(a.dtype)
    if torch.is_grad_enabled():
        result: Tensor = _ResidualNorm.apply(a, b, dim, epsilon)
        return result
    total = a + b
    return total.mul_(_inverse_rms(total, dim, epsilon))


def gate(both: Tensor, *, dim: int) -> Tensor:
    """silu of the first half times the second half."""
    if torch.is_grad_enabled():
        result: Tensor = _Gate.apply(both, dim)
        return result
    first, second = both.chunk(2, dim)
    return torch.nn.functional.silu(first).mul_(second)


def _inverse_rms(x: Tensor, dim: int, epsilon: float) -> Tensor:
    """1 / sqrt(mean of squares + epsilon), keeping the dimension."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    result: Tensor = norm.square_().div_(x.shape[dim]).add_(epsilon).rsqrt_()
    return result
