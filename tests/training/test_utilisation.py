"""Model FLOP utilisation: the count of operations, and the table of devices."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM

from trainyard.trainer.methods.utilisation import PEAKS, operations_per_token, peak_of


def llama(*, tied: bool) -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, tie_word_embeddings=tied, **sizes))


@pytest.mark.parametrize("tied", [True, False])
def test_the_lookup_of_embeddings_is_free_and_the_head_is_not(tied: bool) -> None:
    layer = 4 * 8 * 8 + 3 * 8 * 16
    norms = 3 * 8
    assert operations_per_token(llama(tied=tied)) == 6 * (layer + norms + 8 * 32)


def test_a_frozen_base_has_no_gradients_of_its_own() -> None:
    model = llama(tied=False)
    whole = operations_per_token(model)
    model.requires_grad_(False)
    assert whole is not None
    assert operations_per_token(model) == whole * 4 / 6


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
    ],
)
def test_devices_are_known_by_the_names_that_they_give_themselves(device: str, name: str) -> None:
    assert peak_of(device, "BF16") == PEAKS[name]
    assert peak_of(device, "FP32") is None


def test_what_is_not_known_is_not_guessed() -> None:
    assert peak_of("Intel(R) Xeon(R) Processor", "BF16") is None
    assert peak_of("NVIDIA H2000 Imaginary", "BF16") is None
