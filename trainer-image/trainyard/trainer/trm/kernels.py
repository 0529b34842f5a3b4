"""The two places where a step spends its time, with derivatives written out.

    residual_norm    y = (a + b) / rms(a + b)
    gated_block      y = (x + out @ (silu(gate) * up)) / rms of that, where gate and up are the halves of into @ x

A Tiny Recursive Model on a CPU spends more time in element-wise work than in matrix products: its matrices are small, and
autograd's own formulas go over every activation again and again. So the way forward leaves what the way back needs (the
derivative of silu costs one pass while its sigmoid is in the cache, and two exponentials later), sums are added up inside
the matrix products, and buffers are written in place.

Both work along dim 0, where a tensor is [features, columns], or along dim -1, where it is [rows, features].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _ResidualNorm(torch.autograd.Function):
    """y = (a + b) / rms(a + b) along one dimension, without weights."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, dim: int, epsilon: float) -> Tensor:
        y, scale = _normed(a + b, dim, epsilon)
        ctx.save_for_backward(y, scale)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y, scale = ctx.saved_tensors
        dx = _norm_backward(gradients[0], y, scale, ctx.dim)
        return dx, dx, None, None


class _GatedBlock(torch.autograd.Function):
    """A gated MLP with its residual connection and norm. The way back writes over what the way forward left, so it can be
    gone once only; autograd says so if it is tried twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, into: Tensor, out: Tensor, dim: int, epsilon: float) -> Tensor:
        both = _times(into, x, dim)
        gate, up = both.chunk(2, dim)
        slope = torch.sigmoid(gate)
        activated = gate.mul_(slope)  # silu
        slope.lerp_(slope.new_ones(()), activated)  # its derivative: s + silu * (1 - s)
        slope.mul_(up)
        inner = up.mul_(activated)
        y, scale = _normed(_times(out, inner, dim, plus=x), dim, epsilon)
        ctx.save_for_backward(x, into, out, both, slope, y, scale)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, into, out, both, slope, y, scale = ctx.saved_tensors
        dim = ctx.dim
        activated, inner = both.chunk(2, dim)
        d_total = _norm_backward(gradients[0], y, scale, dim)
        d_inner = _times(out.t(), d_total, dim)
        d_out = _outer(d_total, inner, dim)
        torch.mul(d_inner, activated, out=inner)
        torch.mul(d_inner, slope, out=activated)
        return _times(into.t(), both, dim, plus=d_total), _outer(both, x, dim), d_out, None, None


def residual_norm(a: Tensor, b: Tensor, *, dim: int, epsilon: float) -> Tensor:
    """Root-mean-square norm of a + b along `dim`; 16-bit inputs are summed up in 32 bits."""
    if _plain(a):
        total = a + b
        if a.dtype.itemsize < 4:
            total = total.float()
        return (total * torch.rsqrt(total.square().mean(dim, keepdim=True) + epsilon)).to(a.dtype)
    if torch.is_grad_enabled():
        result: Tensor = _ResidualNorm.apply(a, b, dim, epsilon)
        return result
    return _normed(a + b, dim, epsilon)[0]


def gated_block(x: Tensor, into: Tensor, out: Tensor, *, dim: int, epsilon: float) -> Tensor:
    """Gated MLP, residual connection, norm.

    Args:
        x: [features, columns] for dim 0, [rows, features] for dim -1.
        into: [2 * inner, features], the gate's weights first.
        out: [features, inner].
        dim: 0 or -1.
        epsilon: of the norm.
    """
    if _plain(x):
        gate, up = _times(into, x, dim).chunk(2, dim)
        return residual_norm(x, _times(out, F.silu(gate) * up, dim), dim=dim, epsilon=epsilon)
    if torch.is_grad_enabled():
        result: Tensor = _GatedBlock.apply(x, into, out, dim, epsilon)
        return result
    gate, up = _times(into, x, dim).chunk(2, dim)
    return _normed(_times(out, F.silu(gate, inplace=True).mul_(up), dim, plus=x), dim, epsilon)[0]


def _plain(x: Tensor) -> bool:
    """Whether to leave it to torch: a compiler fuses by itself, and 16 bits are for GPUs."""
    return x.dtype.itemsize < 4 or torch.compiler.is_compiling()


def _times(weights: Tensor, x: Tensor, dim: int, *, plus: Tensor | None = None) -> Tensor:
    """weights @ x along `dim`, in a new tensor."""
    left, right = (weights, x) if dim == 0 else (x, weights.t())
    return left @ right if plus is None else torch.addmm(plus, left, right)


def _outer(gradient: Tensor, x: Tensor, dim: int) -> Tensor:
    """Gradient of the weights in `_times`."""
    return gradient @ x.t() if dim == 0 else gradient.t() @ x


def _normed(total: Tensor, dim: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """`total` over its root mean square, in place, and one over that. (vector_norm takes 30 times as long along dim 0.)"""
    scale = torch.linalg.vecdot(total, total, dim=dim).unsqueeze(dim).div_(total.shape[dim]).add_(epsilon).rsqrt_()
    return total.mul_(scale), scale


def _norm_backward(given: Tensor, y: Tensor, scale: Tensor, dim: int) -> Tensor:
    """(given - y * mean(given * y)) / rms"""
    mean = torch.linalg.vecdot(given, y, dim=dim).unsqueeze(dim).div_(y.shape[dim])
    return torch.addcmul(given, y, mean, value=-1).mul_(scale)
