"""What is written of an adapter, and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainyard.trainer.models.lora import save_adapter

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60}


def test_the_names_of_adapted_layers_stand_in_one_order(tmp_path: Path) -> None:
    """In peft's order, another one in each process, the same training would have another digest."""
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    save_adapter(get_peft_model(LlamaForCausalLM(LlamaConfig(**SIZES)), config), tmp_path)
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(names) == 7
    assert names == sorted(names)
