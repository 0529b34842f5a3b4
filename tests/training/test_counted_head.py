"""The output head over the counted positions: the values and gradients of the whole, for less."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from trainyard.trainer.methods import counted_head, loss
from trainyard.trainer.models.output_head import add_output_head

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ENTRIES = 300


def llama(*, tied: bool = True) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=ENTRIES, tie_word_embeddings=tied, **SIZES))


def capped() -> Any:
    """An architecture that does something to logits after its head."""
    torch.manual_seed(0)
    config = Gemma2Config(vocab_size=ENTRIES, head_dim=8, num_key_value_heads=2, final_logit_softcapping=2.0, **SIZES)
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # so that the cap is felt
    return model


def batch(rows: int = 3, positions: int = 40, share: float = 0.5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, ENTRIES, (rows, positions), generator=generator)
    labels = torch.where(torch.rand((rows, positions), generator=generator) < share, ids, -100)
    return {"input_ids": ids, "labels": labels, "position_ids": torch.arange(positions).expand(rows, -1)}


def whole(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of each next token [rows, positions - 1] from the logits of all positions."""
    logits = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"]).logits[:, :-1]
    labels = inputs["labels"][:, 1:]
    found = torch.log_softmax(logits.double(), -1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return found.where(labels != -100, 0.0)


def equal_gradients(one: Any, other: Any) -> None:
    for (name, left), right in zip(one.named_parameters(), other.parameters(), strict=True):
        assert left.grad is not None
        assert torch.allclose(left.grad, right.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("tile_rows", [1, 7, 1000])
@pytest.mark.parametrize("make", [llama, lambda: llama(tied=False), capped])
def test_the_sum_and_its_gradients_are_those_of_the_whole(
    make: Any, tile_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted_head, "TILE_BYTES", tile_rows * ENTRIES * 4)
    ours, inputs = make(), batch()
    theirs = copy.deepcopy(ours)
    expected, found = -whole(theirs, inputs).sum(), loss.sum_of_losses(ours, inputs)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (found / 7).backward()
    (expected / 7).backward()
    equal_gradients(ours, theirs)


@pytest.mark.parametrize("make", [llama, capped])
def test_each_log_probability_and_its_gradient_are_those_of_the_whole(make: Any) -> None:
    """As pairs need them: every token may have a gradient of its own."""
    ours, inputs = make(), batch()
    theirs = copy.deepcopy(ours)
    weights = torch.rand(3, 39, generator=torch.Generator().manual_seed(2))
    expected = whole(theirs, inputs)
    found = loss.token_log_probs(ours, inputs["input_ids"], inputs["labels"])
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    equal_gradients(ours, theirs)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_with_a_bias_and_over_a_frozen_head_too(uniform: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_head, "TILE_BYTES", 3 * 11 * 4)
    generator = torch.Generator().manual_seed(0)
    sizes = ((8, 5), (11, 5), (11,))
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in sizes]
    hidden, weight, bias = (value.requires_grad_(n == 0 or not frozen) for n, value in enumerate(given))
    targets = torch.randint(0, 11, (8,), generator=generator)
    outer = torch.full((8,), 0.3) if uniform else torch.rand(8, generator=generator)
    expected = torch.log_softmax(torch.nn.functional.linear(hidden, weight, bias), 1).gather(1, targets[:, None])[:, 0]
    found = counted_head._LogProbs.apply(hidden, weight, bias, targets, uniform)
    assert torch.allclose(found, expected)
    wanted = [value for value in (hidden, weight, bias) if value.requires_grad]
    theirs = torch.autograd.grad((expected * outer).sum(), wanted)
    ours = torch.autograd.grad((found * outer).sum(), wanted, retain_graph=True)
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad((found * outer).sum(), wanted)


def test_a_batch_without_a_token_that_counts_is_a_zero_that_can_be_gone_back_from() -> None:
    for make in (llama, capped):
        model, inputs = make(), batch(share=0.0)
        found = loss.sum_of_losses(model, inputs)
        found.backward()
        assert found.item() == 0.0
        assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_head_sees_the_counted_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    linear = torch.nn.functional.linear

    def noted(*given: Any) -> torch.Tensor:
        made = linear(*given)
        seen.append(made.shape)
        return made

    for make in (llama, capped):
        model, inputs = make(), batch()
        counted = int((inputs["labels"][:, 1:] != -100).sum())
        monkeypatch.setattr(torch.nn.functional, "linear", noted)
        loss.sum_of_losses(model, inputs)
        monkeypatch.undo()
        assert max(shape.numel() for shape in seen if shape[-1] == ENTRIES) == counted * ENTRIES
        seen.clear()


def test_what_is_large_and_capped_goes_through_the_fused_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "SMALL_LOGITS", 0)
    model, inputs = capped(), batch()
    expected = -whole(model, inputs).sum()
    add_output_head(model)
    assert not loss.has_a_quick_way(model, inputs)
    assert loss.sum_of_losses(model, inputs).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = llama(), batch()
    before = model(input_ids=inputs["input_ids"]).logits
    loss.sum_of_losses(model, inputs)
    assert not model.lm_head._forward_pre_hooks
    assert torch.equal(model(input_ids=inputs["input_ids"]).logits, before)
