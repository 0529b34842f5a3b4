"""A model's network that computes in f32 over weights which stay as they are stored, mapped from the file.

    model.safetensors (mapped) -> a part's weights in f32, or rounded to f16 -> the part computes -> let go of them

So it needs the memory of one part at a time, where a network in f32 needs twice that of the model at f16. Large weights are taken
in pieces of some rows. A model that cannot be had so is loaded whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL = 4_000_000_000
"""Parameters up to which a model is run in f32, whose rounding no other program's is below."""
PIECE = 1 << 20
"""Values that are in f32 at a time: some MB, which a processor keeps close."""


@dataclass
class Precision:
    """Of a network's weights as they are computed with."""

    f16: bool = False

    def of(self, weight: Any) -> Any:
        """A weight in f32."""
        return at_f16_value(weight.float()) if self.f16 else weight.float()


def is_small(model: Path) -> bool:
    """Whether f32 is within reach."""
    return sum(f.stat().st_size for f in model.glob("*.safetensors")) < 2 * SMALL


def load(model: Path, dtype: str | None = None) -> Any:
    """The network of a model folder; computing in f32 where that is within reach."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    if dtype is None and is_small(model):
        network = _mapped(model, config)
        if network is not None:
            return network
    wanted = dtype or ("float32" if is_small(model) else "auto")
    return AutoModelForCausalLM.from_pretrained(model, config=config, dtype=wanted, local_files_only=True).eval()


def _mapped(model: Path, config: Any) -> Any:
    """The network over mapped weights; None where its files are named otherwise, or its parts reach into each other's weights."""
    import torch
    from accelerate import init_empty_weights
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    stored = {name: value for file in sorted(model.glob("*.safetensors")) for name, value in load_file(file).items()}
    if not stored.keys() <= network.state_dict().keys():
        return None
    network.load_state_dict(stored, assign=True, strict=False)
    network.tie_weights()
    if any(value.is_meta for value in (*network.parameters(), *network.buffers())):
        return None
    network.requires_grad_(False)
    _compute_in_f32(network)
    try:
        with torch.inference_mode():
            network(input_ids=torch.tensor([[0, 1]]))
    except RuntimeError:
        return None  # a part computes with weights of another one
    return network.eval()


def _compute_in_f32(network: Any) -> None:
    import torch

    network.computed = precision = Precision()
    for part in network.modules():
        weights = {name: value for name, value in part.named_parameters(recurse=False) if value.is_floating_point()}
        if not weights:
            continue
        if type(part) is torch.nn.Linear:
            part.__dict__["forward"] = _linear(part, precision)
        elif type(part) is torch.nn.Embedding and part.max_norm is None:
            part.__dict__["forward"] = _embedding(part, precision)
        else:
            part.register_forward_pre_hook(_taken_in(weights, precision))
            part.register_forward_hook(_let_go(weights), always_call=True)


def _linear(part: Any, precision: Precision) -> Any:
    import torch

    rows = max(1, PIECE // part.in_features)

    def forward(given: Any) -> Any:
        bias = None if part.bias is None else precision.of(part.bias)
        made = [torch.nn.functional.linear(given, precision.of(piece)) for piece in part.weight.split(rows)]
        whole = made[0] if len(made) == 1 else torch.cat(made, dim=-1)
        return whole if bias is None else whole + bias

    return forward


def _embedding(part: Any, precision: Precision) -> Any:
    import torch

    def forward(given: Any) -> Any:
        return precision.of(torch.nn.functional.embedding(given, part.weight, part.padding_idx))

    return forward


def _taken_in(weights: dict[str, Any], precision: Precision) -> Any:
    import torch

    def hook(part: Any, _: Any) -> None:
        for name, value in weights.items():
            part._parameters[name] = torch.nn.Parameter(precision.of(value), requires_grad=False)

    return hook


def _let_go(weights: dict[str, Any]) -> Any:
    def hook(part: Any, *_: Any) -> None:
        part._parameters.update(weights)

    return hook


def at_f16(network: Any) -> Any:
    """Changes a network in f32: all that enters or leaves a product is rounded to f16. This is how llama.cpp computes, and many
    times faster on a CPU than products of f16."""
    import torch

    for part in network.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim == 2 and not isinstance(part, torch.nn.Embedding):
            part.register_forward_pre_hook(lambda _, given: tuple(map(at_f16_value, given)))
            part.register_forward_hook(lambda _, given, made: at_f16_value(made))
    if (computed := getattr(network, "computed", None)) is not None:
        computed.f16 = True
    else:
        for parameter in network.parameters():
            parameter.data = at_f16_value(parameter.data)
    return network


def at_f16_value(value: Any) -> Any:
    """A tensor of floats with the values that f16 has for them."""
    import torch

    most = torch.finfo(torch.float16).max
    return value.clamp(-most, most).half().float() if torch.is_tensor(value) and value.is_floating_point() else value
