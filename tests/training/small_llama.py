"""A llama with random weights that is small, and large enough that where a token stands matters; with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.exports.handover.questions import SPARE


def small_llama(folder: Path, *, template: str | None = None, eos_as_list: bool = False, layers: int = 2) -> Path:
    """The model as a folder that transformers loads. A list is how some published models name their end."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(iter([*SPARE, "kubectl get pods -n web"] * 20), 400, folder)
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        initializer_range=0.12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id] if eos_as_list else tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
