"""Generation the quick way: the same answers as transformers' own, with less work."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainyard.trainer.methods.growing_cache import growing_cache
from trainyard.trainer.methods.rollouts import _drawn, sample
from trainyard.trainer.models.packed_linear import packed

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
PROMPTS = [np.array(ids) for ids in ([5, 6, 7], [5, 6, 7], [8], [5, 6, 7], [9, 10, 11, 12, 13])]


def small(*, adapted: bool = False, bias: bool = False) -> Any:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(attention_bias=bias, num_key_value_heads=2, initializer_range=0.3, **SIZES)
    )
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model.eval()


def greedy(model: Any, *, length: int = 10, ends: Any = ()) -> list[list[int]]:
    """The likeliest tokens."""
    made = sample(
        model, PROMPTS, length=length, temperature=1e-5, ends=ends, padding_id=0, batch_size=8, device="cpu",
        autocast=contextlib.nullcontext, seed=[1],
    )  # fmt: skip
    first = made.input_ids.shape[1] - made.length
    return [row[first:][mask].tolist() for row, mask in zip(made.input_ids, made.mask, strict=True)]


def rows_read(model: Any) -> list[tuple[int, int]]:
    """A list that grows by the shape of what each forward pass reads."""
    shapes: list[tuple[int, int]] = []
    inner = model.get_input_embeddings()
    inner.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


@pytest.mark.parametrize("adapted", [False, True])
def test_the_likeliest_answer_is_transformers_own(adapted: bool) -> None:
    model = small(adapted=adapted)
    wanted = []
    for prompt in PROMPTS:
        ids = torch.from_numpy(prompt)[None]
        made = model.generate(input_ids=ids, do_sample=False, max_new_tokens=10, eos_token_id=None, pad_token_id=0)
        wanted.append(made[0, len(prompt) :].tolist())
    assert len({tuple(one) for one in wanted}) > 1
    assert greedy(model) == wanted


def test_a_prompt_is_read_once_and_who_has_ended_leaves() -> None:
    model = small()
    whole = greedy(model)
    end = whole[0][3]
    shapes = rows_read(model)
    cut = greedy(model, ends=[end])
    assert shapes[0] == (3, 5), "three different prompts, the longest of five tokens"
    assert shapes[1] == (5, 1)
    assert shapes[-1][0] < 5
    for one, other in zip(cut, whole, strict=True):
        assert one == other[: other.index(end) + 1 if end in other else None]


@pytest.mark.parametrize(("adapted", "bias"), [(False, False), (False, True), (True, False)])
def test_packed_weights_give_the_same_and_are_put_away(adapted: bool, bias: bool) -> None:
    model = small(adapted=adapted, bias=bias)
    ids = torch.randint(0, 60, (3, 11), generator=torch.Generator().manual_seed(2))

    def replaced() -> int:
        return sum("forward" in vars(module) for module in model.modules())

    with torch.no_grad():
        plain = model(ids).logits
        with packed(model, available=1 << 30) as count:
            assert count == 15, "seven of each layer, and the head"
            assert replaced() == 15
            quick = model(ids).logits
        assert replaced() == 0
        assert torch.equal(model(ids).logits, plain), "as before"
        with packed(model, available=0) as count:
            assert count == 0, "no room for a second copy"
        with torch.autocast("cpu", torch.bfloat16), packed(model, available=1 << 30) as count:
            assert count == 0, "another precision"
    assert torch.allclose(quick, plain, atol=1e-4)


def test_the_adapter_that_is_off_stays_off() -> None:
    model = small(adapted=True)
    ids = torch.randint(0, 60, (2, 5), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), model.disable_adapter():
        plain = model(ids).logits
        with packed(model, available=1 << 30):
            assert torch.allclose(model(ids).logits, plain, atol=1e-4)


def test_a_cache_that_grows_holds_what_a_plain_one_does() -> None:
    model = small()
    ids = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        cache = growing_cache(model, room=7)  # too little: it has to be widened
        parts = [model(ids[:, n : n + 3], past_key_values=cache, use_cache=True).logits for n in (0, 3, 6)]
        assert torch.allclose(torch.cat(parts, dim=1), model(ids).logits, atol=1e-5)
        assert cache.get_seq_length() == 9


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    chances = torch.tensor([0.5, 0.0, 0.3, 0.2])
    torch.manual_seed(0)
    drawn = _drawn(chances.log().expand(20_000, 4))[:, 0]
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert shares[1] == 0
    assert torch.allclose(shares, chances, atol=0.015)
