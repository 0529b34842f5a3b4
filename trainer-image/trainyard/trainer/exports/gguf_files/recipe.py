"""Which type each tensor gets: the mixtures that llama.cpp's own quantizer makes under the same names.

A name such as Q4_K_M is no type but a mixture: values, the feed-forward's way down and the output suffer most from few bits,
so a part of their layers gets more. The rules are llama.cpp's (src/llama-quant.cpp, without an importance matrix), because
people compare files by these names, and tests hold them against a file that its quantizer has made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BLOCK = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "Q8_0": 32, "Q5_0": 32, "Q5_1": 32, "F16": 1, "F32": 1}
"""Weights that are encoded together; a row has to be a multiple."""
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For rows that are no multiple of 256."""
BASE = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K", "Q8_0": "Q8_0"}
FILE_TYPE = {"f16": 1, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
"""`general.file_type`, by which programs name what they have been given."""
MIXED = ("Q4_K_M", "Q5_K_M")
KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|^position_embd\.weight$|^token_types\.weight$"
    r"|ssm_conv1d\.weight|shortconv\.conv\.weight|attn_rel_b\.weight|\.position_embd\."
    r"|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
)
"""Small, or of more use whole."""
LAYER = re.compile(r"^blk\.(\d+)\.")
SEVENTY = ("llama", "qwen2")
"""Architectures whose 80 layers with shared keys llama.cpp calls 70B."""


@dataclass(frozen=True)
class Shape:
    """What the recipe looks at."""

    architecture: str
    layers: int
    experts: int = 0
    heads: int = 1
    kv_heads: int = 1

    @property
    def is_seventy(self) -> bool:
        """llama.cpp spends more on the few shared values of such a model."""
        return self.architecture in SEVENTY and self.layers == 80 and self.heads != self.kv_heads


def types_of(tensors: Mapping[str, Sequence[int]], quantization: str, shape: Shape) -> dict[str, str | None]:
    """The type of each tensor by its name and dimensions (row length first); None where it stays as it is."""
    names = sorted(tensors, key=lambda name: (_layer(name), name))
    values = [
        name for name in names if "attn_v.weight" in name or "attn_qkv.weight" in name or "attn_kv_b.weight" in name
    ]
    downs = [name for name in names if "ffn_down" in name and is_quantized(name, tensors[name])]
    only_values = [name for name in values if "attn_v.weight" in name]
    found: dict[str, str | None] = {}
    for name in names:
        if not is_quantized(name, tensors[name]):
            found[name] = None
            continue
        if name in only_values:
            place, of = only_values.index(name), len(values)
        elif "ffn_down" in name:
            place, of = _layer(name) if shape.experts > 1 else downs.index(name), shape.layers
        else:
            place, of = 0, shape.layers
        tied = "output.weight" not in tensors
        wanted = _wanted(
            name, quantization, shape, tied=tied, more=_use_more_bits(place, of), place=place, row=tensors[name][0]
        )
        found[name] = fitting(wanted, tensors[name][0])
    return found


def is_quantized(name: str, dimensions: Sequence[int]) -> bool:
    """Whether a tensor is encoded at all: matrices, but for some."""
    return name.endswith("weight") and sum(size > 1 for size in dimensions) >= 2 and KEPT.search(name) is None


def fitting(wanted: str, row: int) -> str:
    """The type itself, or the one that takes its place where rows are too short for it."""
    if row % BLOCK[wanted] == 0:
        return wanted
    instead = FALLBACK.get(wanted, "F16")
    return instead if row % BLOCK[instead] == 0 else "F16"


def _wanted(name: str, quantization: str, shape: Shape, *, tied: bool, more: bool, place: int, row: int) -> str:
    base, falcon = BASE[quantization], shape.architecture == "falcon"
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q8_0" if base == "Q8_0" or falcon or row % BLOCK[base] else "Q6_K"
    if "attn_v.weight" in name:
        kind = "Q6_K" if quantization in MIXED and more else base
        kind = "Q5_K" if kind == "Q4_K" and shape.is_seventy else kind
        return "Q8_0" if shape.experts == 8 else kind
    if "attn_k.weight" in name:
        return "Q8_0" if shape.experts == 8 else base
    if "attn_output.weight" in name:
        return "Q5_K" if shape.experts == 8 and quantization == "Q4_K_M" and not falcon else base
    if "attn_qkv.weight" in name:
        return {"Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}.get(quantization, base)
    if "ffn_down" in name:
        if falcon and quantization == "Q4_K_M":
            return "Q6_K" if place < shape.layers // 16 else "Q5_K" if more else "Q4_K"
        return "Q6_K" if quantization in MIXED and more else base
    return base


def _use_more_bits(place: int, of: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    return place < of // 8 or place >= 7 * of // 8 or (place - of // 8) % 3 == 2


def _layer(name: str) -> int:
    found = LAYER.match(name)
    return int(found[1]) if found else -1
