"""How large the model is and about how much memory training takes, without allocating any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api.run.model import Lora
from trainyard.api.run.training import Training
from trainyard.trainer.models.lora import linear_layers
from trainyard.trainer.models.quantize import NF4_BYTES
from trainyard.trainer.models.shapes import shapes_of

ACTIVATION_BYTES_PER_UNIT = 34
"""Bytes of activations per token, layer and hidden unit in 16-bit with a fused attention kernel (Korthikanti et al.,
"Reducing Activation Recomputation in Large Transformer Models", 2022); twice that in FP32."""


@dataclass(frozen=True)
class Estimate:
    """Parameters, and bytes by what they are for."""

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate(
    config: Any, training: Training, *, lora: Lora | None, bytes_per_value: int, quantized: bool = False
) -> Estimate:
    """Build the model on torch's meta device, where tensors have shapes and no storage, and add up.

    Args:
        config: the model's configuration.
        training: batch size and length, optimizer.
        lora: the adapter, if one is trained.
        bytes_per_value: 4 for FP32, 2 for BF16 and FP16.
        quantized: whether the linear layers are in NF4.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return _estimate(
        training,
        parameters=sum(p.numel() for p in model.parameters()),
        adapter=_of_layers(_adapter_parameters(model, lora), lora, text.num_hidden_layers) if lora else None,
        units=int(text.hidden_size) * int(text.num_hidden_layers),
        bytes_per_value=bytes_per_value,
        packed=_linear_parameters(model) if quantized else 0,
    )


def estimate_quickly(
    model_type: str,
    values: Mapping[str, Any],
    training: Training,
    *,
    lora: Lora | None,
    bytes_per_value: int,
    quantized: bool = False,
) -> Estimate | None:
    """The same without importing torch, for architectures whose shapes are known here; None for others."""
    shapes = shapes_of(model_type, values)
    if shapes is None:
        return None
    return _estimate(
        training,
        parameters=shapes.parameters,
        adapter=_of_layers(shapes.adapter(lora.rank, lora.target_modules), lora, shapes.layers) if lora else None,
        units=shapes.hidden * shapes.layers,
        bytes_per_value=bytes_per_value,
        packed=shapes.linear_parameters if quantized else 0,
    )


def _estimate(
    training: Training, *, parameters: int, adapter: int | None, units: int, bytes_per_value: int, packed: int
) -> Estimate:
    trainable = parameters if adapter is None else adapter
    base_bytes = 4 if adapter is None else bytes_per_value
    tokens = training.per_device_train_batch_size * training.max_length
    per_unit = 2 if training.gradient_checkpointing else ACTIVATION_BYTES_PER_UNIT
    return Estimate(
        parameters=parameters + (adapter or 0),
        trainable=trainable,
        weights=(parameters - packed) * base_bytes + int(packed * NF4_BYTES) + (adapter or 0) * 4,
        gradients=trainable * 4,
        optimizer=trainable * optimizer_bytes(training.optim),
        activations=tokens * units * per_unit * bytes_per_value // 2,
    )


def _of_layers(parameters: int, lora: Lora, layers: int) -> int:
    """The share of the last layers, where only they get an adapter; layers are taken as equal."""
    return parameters if lora.layers is None else parameters * min(lora.layers, layers) // layers


def _adapter_parameters(model: Any, lora: Lora) -> int:
    """rank x (inputs + outputs) of every adapted layer."""
    return sum(
        lora.rank * sum(layer.weight.shape)
        for name, layer in _linear_layers(model).items()
        if lora.target_modules == ["all-linear"]
        or any(name == target or name.endswith(f".{target}") for target in lora.target_modules)
    )


def _linear_parameters(model: Any) -> int:
    return sum(layer.weight.numel() for layer in _linear_layers(model).values())


def _linear_layers(model: Any) -> dict[str, Any]:
    """All but the output head."""
    head = model.get_output_embeddings()
    return {name: layer for name, layer in linear_layers(model).items() if layer is not head}


def optimizer_bytes(name: str) -> int:
    """Bytes of state per trained parameter."""
    if "8bit" in name:
        return 2
    if name in ("adafactor", "sgd"):
        return 0
    if name in ("adagrad", "rmsprop") or "lion" in name:
        return 4
    return 8
