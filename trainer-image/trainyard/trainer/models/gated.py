"""The gate of a feed-forward layer as one operation, on a CPU in FP32.

    y = act(gate) up                    or, with an adapted layer behind it,    W (act(gate) up) + b + its update

Written out, the way back needs gate, act(gate), up and their product, each several times as wide as the hidden states: half of
what a training step holds. Here gate and up are kept, and the others made again, which costs a pass and no matrix product.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from trainyard.trainer.models import adapter_linear

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""Of a feed-forward layer, as most architectures call them."""
aten = torch.ops.aten
ACTIVATIONS: dict[str, tuple[Any, Any]] = {
    "silu": (aten.silu, aten.silu_backward),
    "gelu": (aten.gelu, aten.gelu_backward),
    "gelu_tanh": (
        lambda x: aten.gelu(x, approximate="tanh"),
        lambda given, x: aten.gelu_backward(given, x, approximate="tanh"),
    ),
}
"""Forward and back. Which one a layer has is tried out on a few numbers."""


class _Gated(torch.autograd.Function):
    """act(gate) up, both [..., inner]."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        opened: torch.Tensor = ACTIVATIONS[kind][0](gate)
        return opened.mul_(up)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        gate, up = ctx.saved_tensors
        forward, back = ACTIVATIONS[ctx.kind]
        (given,) = outer
        return back(given * up, gate), forward(gate).mul_(given), None


class _GatedAdapted(torch.autograd.Function):
    """The same and the adapted layer behind it, see `adapter_linear`."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str, *layer: Any) -> torch.Tensor:
        result, narrow = adapter_linear.forward(ACTIVATIONS[kind][0](gate).mul_(up), *layer)
        weight, _, down, up_again, ctx.scaling = layer
        ctx.save_for_backward(gate, up, narrow, weight, down, up_again)
        ctx.kind = kind
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        gate, up, *layer = ctx.saved_tensors
        forward, back = ACTIVATIONS[ctx.kind]
        opened = forward(gate)
        given, of_down, of_up = adapter_linear.backward(
            outer[0], opened * up, *layer, scaling=ctx.scaling, reaches_x=True
        )
        return back(given * up, gate), opened.mul_(given), None, None, None, of_down, of_up, None


def quicken_gates(model: Any) -> int:
    """Let each such layer take the quick way where it may. Returns how many there are."""
    found = 0
    for layer in model.modules():
        if (kind := _kind_of(layer)) is not None:
            layer.forward = MethodType(_forward, layer)
            layer._trainyard_gate = kind
            found += 1
    return found


def _kind_of(layer: Any) -> str | None:
    """Its activation, or None for a layer of another kind."""
    parts: list[Any] = [getattr(layer, name, None) for name in PARTS]
    if not type(layer).__name__.endswith("MLP") or None in parts or len(list(layer.children())) != len(PARTS):
        return None
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in layer.parameters()):
        return None
    gate_proj, up_proj, down_proj, act_fn = parts
    x = torch.linspace(-3, 3, 2 * gate_proj.in_features).view(2, -1)
    training = layer.training
    layer.eval()  # an adapter's dropout is no part of the form
    try:
        with torch.no_grad():
            if torch.equal(down_proj(act_fn(gate_proj(x)) * up_proj(x)), layer(x)):
                return next((kind for kind, (act, _) in ACTIVATIONS.items() if torch.equal(act(x), act_fn(x))), None)
    finally:
        layer.train(training)
    return None


def _forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = self.gate_proj(x), self.up_proj(x)
    down = self.down_proj
    if not gate.dtype == up.dtype == torch.float32 or gate.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        slow: torch.Tensor = down(self.act_fn(gate) * up)
        return slow
    if (layer := adapter_linear.parts_of(down, gate)) is not None and not down._forward_hooks:
        both: torch.Tensor = _GatedAdapted.apply(gate, up, self._trainyard_gate, *layer)
        return both
    quick: torch.Tensor = down(_Gated.apply(gate, up, self._trainyard_gate))
    return quick
