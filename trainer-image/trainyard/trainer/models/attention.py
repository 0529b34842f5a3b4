"""`spec.training.attention`: how attention is computed, and whether that can be had here."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

from trainyard.api.run.training import Training
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.machine.device import Device

Attention = Literal["Auto", "FlashAttention2", "SDPA", "Eager"]
FIELD = "spec.training.attention"
PACKAGE = "flash_attn"
NAMES = {"FlashAttention2": "flash_attention_2", "SDPA": "sdpa", "Eager": "eager"}
"""As transformers calls them."""


def attention_of(attention: Attention) -> dict[str, Any]:
    """What transformers is told when it makes a model; nothing for Auto."""
    return {} if attention == "Auto" else {"attn_implementation": NAMES[attention]}


def check_attention(training: Training, device: Device | None = None) -> None:
    """Without a device, as far as the image alone tells.

    Raises:
        UserError: it cannot be had.
    """
    if training.attention != "FlashAttention2":
        return
    if importlib.util.find_spec(PACKAGE) is None:
        raise invalid_config(
            f"{FIELD} FlashAttention2 needs the package {PACKAGE}, which this image has not",
            hint="use SDPA, which has a kernel of its own for it, or an image of your own with that package (spec.image)",
        )
    if device is not None and (device.kind != "cuda" or device.precision == "FP32"):
        raise invalid_config(
            f"{FIELD} FlashAttention2 needs a GPU that computes in BF16 or FP16, and this is {device.name} in {device.precision}",
            hint="use SDPA or Auto",
        )
