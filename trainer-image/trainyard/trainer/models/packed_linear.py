"""Linear layers over few rows on a CPU: weights laid out beforehand for the matrix product of oneDNN.

A step of generation multiplies each weight with one row an answer. For so few rows the product that torch takes by itself
spends most of its time in bringing the weights into order, at every call; laid out once they give the same values, but for
roundings, in a third to a fifth of the time. An adapter is added into the weights on the way. The layout is a second copy of the
weights, held for as long as nothing is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

SHARE = 0.5
"""Of the host's free memory, that the second copy may take."""
ROWS = 16
"""What the layout is made for; it takes any number of rows."""

_Forward = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def packed(model: Any, *, available: int) -> Iterator[int]:
    """Let the layers that can take the quick way do so inside. Gives how many there are.

    Args:
        available: bytes of host memory that are free.
    """
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    found = dict(_layers(model)) if there and not torch.is_autocast_enabled("cpu") else {}
    if sum(weight.numel() * weight.element_size() for _, weight, _ in found.values()) > SHARE * available:
        found = {}
    ways: dict[Any, _Forward] = {}
    own = {layer: vars(layer).get("forward") for layer in found}
    try:
        for layer, (linear, weight, update) in found.items():
            key = layer if update is not None else weight  # one that is shared is laid out once
            if key not in ways:
                ways[key] = _way(weight if update is None else weight + update(), linear.bias)
            layer.forward = ways[key]
        yield len(found)
    finally:
        for layer, forward in own.items():
            if forward is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = forward


def _way(weight: torch.Tensor, bias: torch.Tensor | None) -> _Forward:
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    offset = None if bias is None else bias.detach()
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = multiply(x, laid_out, offset, "none", [], "")
        return result

    return forward


def _layers(model: Any) -> Iterator[tuple[Any, tuple[Any, torch.Tensor, Callable[[], torch.Tensor] | None]]]:
    """Each layer with its linear layer, the weight of that, and what an adapter adds to it."""
    from peft.tuners.lora.layer import Linear as Adapted

    inside = set()
    for module in model.modules():
        if type(module) is Adapted:
            base = module.get_base_layer()
            names = [name for name in module.active_adapters if name in module.lora_A]
            plain = (
                type(base) is torch.nn.Linear and len(names) == 1 and not module.merged and not module.disable_adapters
            )
            if plain and names[0] not in module.lora_variant and _fits(base) and module.lora_B[names[0]].bias is None:
                inside.update(module.modules())
                yield module, (base, base.weight, partial(module.get_delta_weight, names[0]))
        elif type(module) is torch.nn.Linear and module not in inside and _fits(module):
            yield module, (module, module.weight, None)


def _fits(linear: Any) -> bool:
    return bool(linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32)
