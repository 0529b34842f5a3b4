"""How much of the device's arithmetic the training uses: model FLOP utilisation, as PaLM's authors defined it.

A token costs two floating point operations per weight of a matrix forward, two more backward for the activations, and two
for the weight's own gradient where it is trained. The lookup of embeddings is no matrix product; the output head is one, also
where it shares its weights with them. Attention's own products are left out, so for long sequences the share is told a little
too low. What gradient checkpointing computes twice does not count twice.
"""

from __future__ import annotations

from typing import Any

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX A6000": 154.8e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense 16-bit products with 32-bit sums, in floating point operations per second, from the makers' data sheets; the longest
name that stands in the device's counts. GeForce cards sum in 32 bits at half of the advertised speed."""


def peak_of(device: str, precision: str) -> float | None:
    """Operations per second that the device could do; None where it is not known, as for CPUs and for FP32."""
    words = device.replace("-", " ").split()
    known = [name for name in PEAKS if _stands_in(name.split(), words)]
    return PEAKS[max(known, key=len)] if known and precision in ("BF16", "FP16") else None


def operations_per_token(model: Any) -> float | None:
    """Floating point operations of forward and backward; None for mixtures of experts, where it depends on the token."""
    text = model.config.get_text_config()
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings()
    shared = output is not None and output.weight is embedding  # a reward model has no output head
    lookups = 0 if shared else embedding.numel()
    parameters = sum(p.numel() for p in model.parameters()) - lookups
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and p is not embedding)
    trained += embedding.numel() if shared and embedding.requires_grad else 0
    return float(4 * parameters + 2 * trained)


def _stands_in(name: list[str], words: list[str]) -> bool:
    return any(words[at : at + len(name)] == name for at in range(len(words)))
