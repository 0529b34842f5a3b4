"""The quick formulas for a model's size against the models that torch builds."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from trainyard.api.run.model import Lora
from trainyard.api.run.training import Training
from trainyard.trainer.models.estimate import estimate, estimate_quickly
from trainyard.trainer.models.lora import add_adapter

pytestmark = pytest.mark.slow

SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", SMALL),
    ("llama", {**SMALL, "tie_word_embeddings": True, "attention_bias": True}),
    ("llama", {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    ("mistral", {**SMALL, "head_dim": 32}),
    ("qwen2", {**SMALL, "tie_word_embeddings": True}),
    ("qwen3", {**SMALL, "head_dim": 16}),
    ("gpt2", {"vocab_size": 300, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    ("gpt2", {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_inner": 100}),
]


@pytest.mark.parametrize(("architecture", "values"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)])
def test_the_quick_estimate_is_the_slow_one(architecture: str, values: dict[str, Any]) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(architecture, **values)
    training = Training(method="Pretrain", max_length=128)
    targets = ["c_proj"] if architecture == "gpt2" else ["q_proj", "down_proj"]
    for lora, packed in product((None, Lora(rank=4), Lora(rank=8, target_modules=targets)), (False, True)):
        quick = estimate_quickly(architecture, values, training, lora=lora, bytes_per_value=4, quantized=packed)
        assert quick == estimate(config, training, lora=lora, bytes_per_value=4, quantized=packed)


def test_a_packed_base() -> None:
    from transformers import AutoConfig

    training, lora = Training(method="SFT", max_length=128), Lora(rank=4)
    config = AutoConfig.for_model("llama", **SMALL)
    whole = estimate(config, training, lora=lora, bytes_per_value=2)
    packed = estimate(config, training, lora=lora, bytes_per_value=2, quantized=True)
    assert packed == estimate_quickly("llama", SMALL, training, lora=lora, bytes_per_value=2, quantized=True)
    linear = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
    assert whole.weights - packed.weights == pytest.approx(linear * (2 - 0.516), rel=1e-3)


def test_an_adapter_is_as_large_as_the_one_that_is_made() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    for architecture, values in CASES:
        config = AutoConfig.for_model(architecture, **values)
        adapter = add_adapter(AutoModelForCausalLM.from_config(config), Lora(rank=4))
        found = estimate(config, Training(method="SFT"), lora=Lora(rank=4), bytes_per_value=4)
        assert found.trainable == sum(p.numel() for p in adapter.parameters() if p.requires_grad) > 0


def test_what_is_not_known_takes_the_slow_way() -> None:
    training = Training(method="Pretrain")
    assert estimate_quickly("mamba", {}, training, lora=None, bytes_per_value=4) is None
