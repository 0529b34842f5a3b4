"""Muon beside AdamW, and the two rates of LoRA+, on models of a few numbers."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer

from trainyard.api.run.model import Lora
from trainyard.trainer.methods.optimizer import MuonAndAdamW, lora_plus, matrices_of, muon
from trainyard.trainer.models.lora import add_adapter

pytestmark = pytest.mark.slow
ARGUMENTS = SimpleNamespace(
    learning_rate=0.01, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-8, optim="adamw_torch",
    optim_args=None,
)  # fmt: skip


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    )


def stand_in(model: Any) -> Any:
    trainer = SimpleNamespace(model=model, args=ARGUMENTS)
    trainer.get_decay_parameter_names = lambda model: Trainer.get_decay_parameter_names(trainer, model)
    trainer.get_optimizer_cls_and_kwargs = lambda args, model: (torch.optim.AdamW, {"lr": args.learning_rate})
    return trainer


def step(model: Any, optimizer: Any, seed: int) -> None:
    ids = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def test_muon_is_for_matrices_and_adamw_for_the_rest() -> None:
    """The same as the two optimizers of torch, each by itself."""
    model = llama()
    names = matrices_of(model)
    assert len(names) == 7
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in names)
    other = copy.deepcopy(model)
    ours = muon(stand_in(model))
    matrices = [p for name, p in other.named_parameters() if name in names]
    norms = [p for name, p in other.named_parameters() if name not in names and "norm" in name]
    rest = [p for name, p in other.named_parameters() if name not in names and "norm" not in name]
    theirs = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
            lr=0.01, betas=(0.9, 0.99), eps=1e-8,
        ),
    ]  # fmt: skip
    both = SimpleNamespace(zero_grad=other.zero_grad, step=lambda: [one.step() for one in theirs])
    for seed in range(3):
        step(model, ours, seed)
        step(other, both, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_two_optimizers_are_saved_and_scheduled_as_one() -> None:
    model = llama()
    optimizer = muon(stand_in(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 / (1 + done))
    step(model, optimizer, 0)
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    step(model, optimizer, 1)
    again = llama()
    again.load_state_dict(weights)
    fresh = muon(stand_in(again))
    assert isinstance(fresh, MuonAndAdamW)
    fresh.load_state_dict(saved)
    step(again, fresh, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_an_adapter_of_linear_layers_alone_has_nothing_for_adamw() -> None:
    model = add_adapter(llama(), Lora(rank=2))
    optimizer = muon(stand_in(model))
    assert len(optimizer.param_groups) == 1
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    step(model, optimizer, 0)
    step(model, optimizer, 1)
    assert all(
        not torch.equal(a, b)
        for a, b in zip(before, filter(lambda p: p.requires_grad, model.parameters()), strict=True)
    )


def test_lora_plus_raises_the_rate_of_b_alone() -> None:
    model = add_adapter(llama(), Lora(rank=2, lora_plus_ratio=16))
    groups = lora_plus(stand_in(model), 16).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)].split(".")[-3]: group["lr"] for group in groups for p in group["params"]}
    assert rates == {"lora_A": 0.01, "lora_B": 0.16}
    assert sum(len(group["params"]) for group in groups) == 14


def test_rank_stabilised_scale() -> None:
    def scale(**given: Any) -> float:
        model = add_adapter(llama(), Lora(rank=4, alpha=8, **given))
        return next(m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A"))

    assert (scale(), scale(rs_lora=True)) == (2.0, 4.0)


def test_pissa_leaves_the_answers_as_they_are() -> None:
    model = llama().eval()
    ids = torch.arange(10)[None]
    before = model(input_ids=ids).logits
    adapted = add_adapter(model, Lora(rank=2, initialisation="PiSSA")).eval()
    assert torch.allclose(adapted(input_ids=ids).logits, before, atol=1e-5)
    with adapted.disable_adapter():
        assert not torch.allclose(adapted(input_ids=ids).logits, before, atol=1e-3), "the base keeps only the rest"
