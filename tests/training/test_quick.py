"""Attention, normalisation, rotation and gates the quick way: each architecture's own values and gradients."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaMLP

from trainyard.trainer.models import packed_attention, rotary
from trainyard.trainer.models.gated import quicken_gates
from trainyard.trainer.models.packed_attention import attend, plan_of, quicken_attention
from trainyard.trainer.models.quick import quicken
from trainyard.trainer.models.rms_norm import quicken_norms
from trainyard.trainer.models.rotary import quicken_rotation

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 60}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(num_hidden_layers=2, num_key_value_heads=2, **SIZES),
    "qwen3": Qwen3Config(num_hidden_layers=2, num_key_value_heads=2, head_dim=8, **SIZES),
    "gemma3": Gemma3TextConfig(num_hidden_layers=7, num_key_value_heads=1, head_dim=8, sliding_window=20, **SIZES),
    "phi3": Phi3Config(num_hidden_layers=2, num_key_value_heads=2, pad_token_id=0, **SIZES),
    "gpt_neox": GPTNeoXConfig(num_hidden_layers=2, **SIZES),
}
"""With a weight that counts from one, a window that slides, a rotation of a part of each head, and a norm of another kind."""
EXAMPLES = [[10, 3, 30, 7, 40, 38], [24, 1, 1, 32, 30, 40]]
"""Lengths of the examples in two packed rows."""
POSITIONS = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in EXAMPLES])
IDS = torch.randint(0, 60, POSITIONS.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def own_functions() -> Iterator[None]:
    """What stands for the whole process is as it was before, and after."""
    names = [f"transformers.models.{n}.modeling_{n}" for n in CONFIGS]
    before = {
        n: vars(sys.modules[n])[rotary.NAME] for n in names if n in sys.modules and rotary.NAME in vars(sys.modules[n])
    }
    functions = ALL_ATTENTION_FUNCTIONS[packed_attention.NAME]
    yield
    ALL_ATTENTION_FUNCTIONS[packed_attention.NAME] = functions
    for name, function in before.items():
        setattr(sys.modules[name], rotary.NAME, function)


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.7, 0.2)
    return model


def results(model: Any) -> list[torch.Tensor]:
    """Logits, and every gradient."""
    model.zero_grad()
    logits = model(input_ids=IDS, position_ids=POSITIONS, use_cache=False).logits
    (logits.log_softmax(-1)[..., 5] * torch.linspace(0, 1, IDS.shape[1])).sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("name", CONFIGS)
def test_values_and_gradients_are_the_architectures_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    ALL_ATTENTION_FUNCTIONS[packed_attention.NAME] = sdpa_attention_forward
    wanted = results(model)
    quicken(model)
    plans: list[Any] = []
    monkeypatch.setattr(packed_attention, "plan_of", lambda mask: (plans.append(plan_of(mask)), plans[-1])[1])
    found = results(model)
    assert any(plans), "no layer took the quick way"
    assert any(plan is None for plan in plans) == (name == "gemma3"), "a window that slides is not cut"
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize(
    ("name", "norms", "rotates"),
    [("llama", 5, True), ("qwen3", 9, True), ("gemma3", 43, True), ("phi3", 5, True), ("gpt_neox", 0, True)],
)
def test_who_takes_the_quick_way(name: str, norms: int, rotates: bool) -> None:
    model = model_of(name)
    assert quicken_norms(model) == norms
    assert quicken_rotation(model) is rotates
    assert quicken_rotation(model) is rotates, "asked twice"


def test_a_norm_that_only_sounds_alike_is_left_alone() -> None:
    class OtherRMSNorm(torch.nn.RMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.01

    assert quicken_norms(OtherRMSNorm(8, eps=1e-6)) == 0
    assert quicken_norms(type("PlainRMSNorm", (torch.nn.RMSNorm,), {})(8, eps=1e-6)) == 1


def test_another_precision_is_done_as_the_architecture_does_it() -> None:
    model = model_of("llama")
    twin = copy.deepcopy(model).to(torch.bfloat16)
    quicken_norms(model)
    model.to(torch.bfloat16)
    assert torch.equal(model(input_ids=IDS).logits, twin(input_ids=IDS).logits)


@pytest.mark.parametrize("begins", [[0, 2, 4], [0], [0, 1, 2, 3]])
def test_every_position_has_one_slot(begins: list[int]) -> None:
    length = 40
    first = torch.tensor([max(b for b in begins if b <= i) for i in range(length)])
    position = torch.arange(length)
    mask = (position >= first[:, None]) & (position <= position[:, None])
    plan = plan_of(torch.stack([mask, mask, mask]))
    assert plan is not None
    assert torch.equal(torch.cat(plan.slots)[plan.places], torch.arange(3 * length))
    assert [number * longest for number, longest in plan.groups] == [len(slots) for slots in plan.slots]
    assert sum(map(len, plan.slots)) - sum(map(len, plan.padded)) == 3 * length


@pytest.mark.parametrize(("name", "gates"), [("llama", 2), ("qwen3", 2), ("gemma3", 7), ("phi3", 0), ("gpt_neox", 0)])
def test_which_layers_have_a_gate_of_the_common_form(name: str, gates: int) -> None:
    assert quicken_gates(model_of(name)) == gates


def test_a_gate_that_only_sounds_alike_is_left_alone() -> None:
    class ScaledMLP(LlamaMLP):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.01

    class OtherMLP(LlamaMLP):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.act_fn = torch.nn.Softplus()

    assert [quicken_gates(kind(CONFIGS["llama"])) for kind in (ScaledMLP, OtherMLP, LlamaMLP)] == [0, 0, 1]


@pytest.mark.parametrize("adapter", [False, True])
def test_a_gated_layer_keeps_two_tensors_of_its_inner_width(adapter: bool) -> None:
    model = model_of("llama")
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    quicken(model)
    kept: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
    ):
        model(input_ids=IDS, position_ids=POSITIONS, use_cache=False)
    inner = SIZES["intermediate_size"]
    wide = sum(x.numel() == IDS.numel() * inner and x.shape[-1] == inner for x in kept.values())
    assert wide == 2 * (2 if adapter else 3), "gate and up, and for a layer that is trained whole its input"


@pytest.mark.parametrize("change", ["not causal", "sees the example before", "sees nothing"])
def test_any_other_mask_is_left_to_transformers(change: str) -> None:
    mask = torch.block_diag(*[torch.ones(10, 10).tril() for _ in range(8)]).bool()[None]
    assert plan_of(mask) is not None
    mask = mask.clone()
    if change == "not causal":
        mask[0, 12, 15] = True
    elif change == "sees the example before":
        mask[0, 15, 5:15] = True
    else:
        mask[0, 33] = False
    assert plan_of(mask) is None


def test_it_is_asked_for_by_the_name_of_the_own_one() -> None:
    quicken_attention()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
