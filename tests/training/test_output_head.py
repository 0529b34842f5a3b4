"""The output head in tiles: the same loss and gradients as from whole logits."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainyard.trainer.methods.loss import sum_of_losses
from trainyard.trainer.models.output_head import CPU_TILE, add_output_head

pytestmark = pytest.mark.slow


def test_tiles_of_the_fused_head_give_the_loss_and_the_gradients_of_the_quick_way() -> None:
    tokens, entries = CPU_TILE
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = LlamaForCausalLM(LlamaConfig(vocab_size=entries + 100, tie_word_embeddings=True, **sizes))
    tiled = copy.deepcopy(whole)
    add_output_head(tiled)
    ids = torch.randint(0, entries + 100, (2, tokens // 2 + 50))
    labels = ids.clone()
    labels[:, ::3] = -100
    inputs = {"input_ids": ids, "labels": labels, "position_ids": torch.arange(ids.shape[1]).expand(2, -1)}
    expected = sum_of_losses(whole, inputs)
    found = -tiled(**inputs, fused_lm_head=True).log_probs.sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    found.backward()
    for (name, one), other in zip(whole.named_parameters(), tiled.parameters(), strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4), name
