"""A frozen base model with 4 bits a weight (QLoRA: Dettmers et al., 2023).

bitsandbytes packs the linear layers as they are loaded and unpacks them again in each matrix product, so it saves memory
and costs time. Embeddings, norms and the output head stay as they are. It is for training alone: the adapter is merged
into the source's own weights, and evaluation measures those.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.machine.device import Device

FIELD = "spec.model.adapter.quantization"
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight: 4 bits, for 64 weights a scale of 8 bits, and for 256 of those one of 32."""


def is_quantized(context: RunContext) -> bool:
    """Whether the training works on a base in 4 bits."""
    return context.model.adapter is not None and context.model.adapter.quantization is not None


def nf4(device: Device) -> Any:
    """How transformers is told to load the base.

    Raises:
        UserError: there is no GPU, or the image has no bitsandbytes.
    """
    if device.kind != "cuda":
        raise invalid_config(
            f"{FIELD} NF4 needs a GPU, and this step has none",
            hint="ask for one in spec.resources.limits (nvidia.com/gpu: 1), or remove the field: the adapter then trains on "
            "the base in its full width",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise invalid_config(
            f"{FIELD} NF4 needs the package bitsandbytes, which this image has not",
            hint="use the trainer's CUDA image (spec.image), or remove the field",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.compute_dtype,
    )
