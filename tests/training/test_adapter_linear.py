"""An adapted layer as one operation: peft's values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainyard.trainer.models import adapter_linear
from trainyard.trainer.models.adapter_linear import quicken_adapters
from trainyard.trainer.models.quick import quicken

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 60}


def adapted(*, dropout: float = 0.0, bias: bool = False) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(attention_bias=bias, **SIZES))
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    found = get_peft_model(model, config)
    with torch.no_grad():  # an update that is not zero
        for name, parameter in found.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return found


IDS = torch.randint(0, 60, (3, 11), generator=torch.Generator().manual_seed(2))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each layer that takes the quick way."""
    calls: list[int] = []
    apply = adapter_linear._Adapted.apply
    monkeypatch.setattr(adapter_linear._Adapted, "apply", lambda *given: (calls.append(1), apply(*given))[1])
    return calls


@pytest.mark.parametrize("bias", [False, True])
def test_logits_and_gradients_are_those_of_peft(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, calls = adapted(bias=bias), counted(monkeypatch)
    ours = copy.deepcopy(theirs)
    assert quicken_adapters(ours) == 14
    for model in (theirs, ours):
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert len(calls) == 14
    assert torch.allclose(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5), name


def test_the_gradient_reaches_what_stands_before_the_first_layer() -> None:
    models = [adapted(), adapted()]
    quicken_adapters(models[0])
    gradients = []
    for model in models:
        embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
        model(inputs_embeds=embeddings, labels=IDS).loss.backward()
        gradients.append(embeddings.grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=5e-5)


def test_whatever_else_a_layer_is_asked_for_is_done_as_peft_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    plain, quick = adapted().eval(), adapted().eval()
    quicken_adapters(quick)
    with torch.no_grad():
        with quick.disable_adapter(), plain.disable_adapter():
            assert torch.equal(quick(input_ids=IDS).logits, plain(input_ids=IDS).logits)
        quick.merge_adapter()
        plain.merge_adapter()
        assert torch.equal(quick(input_ids=IDS).logits, plain(input_ids=IDS).logits)
        assert not calls
        quick.unmerge_adapter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            quick(input_ids=IDS)
        assert not calls
        quick(input_ids=IDS)
        assert len(calls) == 14
    dropping = adapted(dropout=0.5).train()
    quicken_adapters(dropping)
    dropping(input_ids=IDS)
    assert len(calls) == 14


def test_with_the_gate_before_it_the_gradients_are_those_of_peft() -> None:
    theirs = adapted()
    ours = copy.deepcopy(theirs)
    quicken(ours)
    for model in (theirs, ours):
        model(input_ids=IDS, labels=IDS).loss.backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5), name


def test_a_quickened_model_is_saved_merged_and_copied_as_any_other(tmp_path: Any) -> None:
    model = adapted().eval()
    expected = model(input_ids=IDS).logits
    quicken_adapters(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        next(p for n, p in twin.named_parameters() if "lora_B" in n).zero_()
    assert not torch.allclose(twin(input_ids=IDS).logits, expected)
    assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert torch.allclose(model.merge_and_unload()(input_ids=IDS).logits, expected, atol=1e-4)
