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

Parts = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, float]
"""W, b, A, B and the scaling of a layer."""


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output, and the narrow x A^T [rows, rank] for the way back."""
    rows = x.reshape(-1, x.shape[-1])
    narrow = rows @ down.T
    result = torch.nn.functional.linear(rows, weight, bias).addmm_(narrow, up.T, alpha=scaling)
    return result.view(*x.shape[:-1], -1), narrow


def backward(
    given: torch.Tensor,
    x: torch.Tensor,
    narrow: torch.Tensor,
    weight: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    *,
    scaling: float,
    reaches_x: bool,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Gradients of x, A and B."""
    rows, given = x.reshape(-1, x.shape[-1]), given.reshape(-1, given.shape[-1])
    of_narrow = given @ up
    of_x = (given @ weight).addmm_(of_narrow, down, alpha=scaling).view(x.shape) if reaches_x else None
    return of_x, (of_narrow.T @ rows).mul_(scaling), (given.T @ narrow).mul_(scaling)


class _Adapted(torch.autograd.Function):
    """See the module's text. W [out, in] and b have no gradient; A is [rank, in], B is [out, rank]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, down: Any, up: Any, scaling: float) -> torch.Tensor:
        result, narrow = forward(x, weight, bias, down, up, scaling)
        ctx.save_for_backward(x, narrow, weight, down, up)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        of_x, of_down, of_up = backward(
            outer[0], *ctx.saved_tensors, scaling=ctx.scaling, reaches_x=ctx.needs_input_grad[0]
        )
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
    if arguments or named or (parts := parts_of(self, x)) is None:
        slow: torch.Tensor = type(self).forward(self, x, *arguments, **named)
        return slow
    quick: torch.Tensor = _Adapted.apply(x, *parts)
    return quick


def parts_of(layer: Any, x: torch.Tensor) -> Parts | None:
    """What `forward` takes behind x, where `layer` may take the quick way with such an x now."""
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or type(base := layer.get_base_layer()) is not torch.nn.Linear:
        return None
    if (name := _only_adapter(layer)) is None or not _is_quick(layer, x, name):
        return None
    return base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])


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
