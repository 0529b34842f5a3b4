"""Bases whose weights are published in FP8, with a scale for each block: they are trained in full width.

transformers keeps them packed where the GPU can multiply FP8, which trains nothing, and unpacks them to BF16 elsewhere, whatever
width was asked for. Here they are unpacked everywhere, to the width that the training wants, and the result is an ordinary model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

METHOD = "fp8"


def is_fp8(values: dict[str, Any]) -> bool:
    """Whether a config.json says so."""
    packed = values.get("quantization_config")
    return isinstance(packed, dict) and packed.get("quant_method") == METHOD


def unpacking(folder: Path) -> dict[str, Any]:
    """What `from_pretrained` is told of such a folder; nothing of another."""
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}  # transformers has the better words for that
    if not (isinstance(values, dict) and is_fp8(values)):
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.quantization_config = {**values["quantization_config"], "dequantize": True}
    return {"config": config}


def as_if_never_packed(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """The weights in one width, and nothing left that says how they were packed."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)
    vars(model)["is_quantized"] = False
    # A save would undo what the load has done, and pack the result again.
    vars(model).pop("_weight_conversions", None)
