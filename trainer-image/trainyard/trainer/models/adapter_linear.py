"""A frozen linear layer with its low-rank update as one operation, on a CPU.

    y = x W^T + b + s (x A^T) B^T

Written out in single operations, as peft has it, the update costs little arithmetic and much memory traffic: its product, its
scaling and its addition each go over a tensor as large as the layer's output, forward and back. Here it is added into the
output, and on the way back into the gradient of the input, by the matrix product itself; kept for the way back are x and the
narrow x A^T alone. The values are peft's but for the order of additions.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch


class _Adapted(torch.autograd.Function):
    """See the module's text. W [out, in] and b have no gradient; A is [rank, in], B is [out, rank]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        narrow = rows @ down.T
        result = torch.nn.functional.linear(rows, weight, bias).addmm_(narrow, up.T, alpha=scaling)
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.scaling, ctx.shape = scaling, x.shape
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        rows, narrow, weight, down, up = ctx.saved_tensors
        given = outer[0].reshape(-1, outer[0].shape[-1])
        of_narrow = given @ up
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (given @ weight).addmm_(of_narrow, down, alpha=ctx.scaling).view(ctx.shape)
        of_down = (of_narrow.T @ rows).mul_(ctx.scaling) if ctx.needs_input_grad[3] else None
        of_up = (given.T @ narrow).mul_(ctx.scaling) if ctx.needs_input_grad[4] else None
        return of_x, None, None, of_down, of_up, None


def quicken_adapters(model: Any) -> int:
    """Let each adapted layer that allows it take the quick way. Returns how many there are.

    A layer decides at each call: merged, switched off, with dropout, several adapters, another precision, or a gradient of its
    frozen weight, it does what peft does.
    """
    from peft.tuners.lora.layer import Linear

    layers = [m for m in model.modules() if type(m) is Linear and type(m.get_base_layer()) is torch.nn.Linear]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _forward(self: Any, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
    if arguments or named or (name := _only_adapter(self)) is None or not _is_quick(self, x, name):
        slow: torch.Tensor = type(self).forward(self, x, *arguments, **named)
        return slow
    base = self.get_base_layer()
    down, up = self.lora_A[name].weight, self.lora_B[name].weight
    quick: torch.Tensor = _Adapted.apply(x, base.weight, base.bias, down, up, float(self.scaling[name]))
    return quick


def _only_adapter(layer: Any) -> str | None:
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    return active[0] if len(active) == 1 else None


def _is_quick(layer: Any, x: torch.Tensor, name: str) -> bool:
    base, dropout = layer.get_base_layer(), layer.lora_dropout[name]
    return (
        not layer.merged
        and not layer.disable_adapters
        and name not in layer.lora_variant
        and (isinstance(dropout, torch.nn.Identity) or not layer.training)
        and layer.lora_A[name].bias is None
        and layer.lora_B[name].bias is None
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
        and x.device.type == "cpu"
        and x.dtype == base.weight.dtype == layer.lora_A[name].weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
