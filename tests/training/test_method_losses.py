"""The arithmetic of DPO, ORPO, KTO and PPO against numbers worked out by hand, and against TRL's own code."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from trainyard.api.run.methods import PAIRS, chosen
from trainyard.api.run.model import Lora
from trainyard.api.run.reward import Reward
from trainyard.trainer.data.store import Sequences, write_split
from trainyard.trainer.data.tokenize import Example
from trainyard.trainer.errors import UserError
from trainyard.trainer.methods.arguments import config_class
from trainyard.trainer.methods.dpo import DpoSettings, dpo_loss
from trainyard.trainer.methods.kto import KtoSettings, Mismatched, kto_losses, kto_metrics, kto_settings
from trainyard.trainer.methods.loss import token_log_probs
from trainyard.trainer.methods.orpo import orpo_loss
from trainyard.trainer.methods.pairs import Scores, collate_pairs, scores_of
from trainyard.trainer.methods.ppo import advantages_and_returns, next_kl_coef, whitened
from trainyard.trainer.methods.ppo_config import PPOConfig
from trainyard.trainer.methods.recipes import PAIR_LOSSES
from trainyard.trainer.methods.reward_model import center_coefficient, reward_loss, scorer
from trainyard.trainer.methods.rewards import Judge, Response, built_in
from trainyard.trainer.methods.rollouts import Responses, forward, sample
from trainyard.trainer.models.lora import add_adapter

pytestmark = pytest.mark.slow


def scores(
    chosen: float, rejected: float, reference: tuple[float, float] = (0.0, 0.0), tokens: tuple[int, int] = (2, 4)
) -> Scores:
    numbers = (chosen, rejected, *map(float, tokens), *reference)
    return Scores(*(torch.tensor([number], dtype=torch.float64) for number in numbers))


def loss_of(settings: DpoSettings, given: Scores) -> float:
    return float(dpo_loss(settings)(given)[0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand() -> None:
    """d = (-10 + 12) - (-20 + 15) = 7."""
    pair = scores(-10.0, -20.0, (-12.0, -15.0))
    assert loss_of(DpoSettings(beta=0.1), pair) == pytest.approx(-math.log(sigmoid(0.7)))
    assert loss_of(DpoSettings(beta=0.1), pair) == pytest.approx(0.403186, abs=1e-6)
    assert loss_of(DpoSettings(beta=0.1, loss_type=("hinge",)), pair) == pytest.approx(0.3)
    # per token: 2 / 2 - (-5 / 4) = 2.25
    assert loss_of(DpoSettings(beta=0.5, loss_type=("ipo",)), pair) == pytest.approx((2.25 - 1) ** 2)
    robust = DpoSettings(beta=0.1, loss_type=("robust",), label_smoothing=0.1)
    by_hand = -(0.9 * math.log(sigmoid(0.7)) - 0.1 * math.log(sigmoid(-0.7))) / 0.8
    assert loss_of(robust, pair) == pytest.approx(by_hand)
    both = DpoSettings(beta=0.1, loss_type=("sigmoid", "hinge"), loss_weights=(2.0, 0.5))
    assert loss_of(both, pair) == pytest.approx(2 * 0.403186 + 0.15, abs=1e-5)


def test_dpo_metrics_by_hand() -> None:
    _, metrics = dpo_loss(DpoSettings(beta=0.1))(scores(-10.0, -20.0, (-12.0, -15.0)))
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 0.2,
            "rewards/rejected": -0.5,
            "rewards/margins": 0.7,
            "rewards/accuracies": 1.0,
            "logps/chosen": -10,
            "logps/rejected": -20,
        }
    )


def test_orpo_by_hand() -> None:
    """log p = -1 and -2 per token: odds e^-1 / (1 - e^-1) and e^-2 / (1 - e^-2)."""
    losses, metrics = orpo_loss(0.25)(scores(-2.0, -8.0))
    log_odds = math.log(math.exp(-1) / (1 - math.exp(-1))) - math.log(math.exp(-2) / (1 - math.exp(-2)))
    assert float(losses) == pytest.approx(1 - 0.25 * math.log(sigmoid(log_odds)), rel=1e-6)
    assert float(metrics["log_odds_chosen"]) == pytest.approx(log_odds, rel=1e-6)
    assert float(metrics["nll_loss"]) == pytest.approx(1)


def test_orpo_of_a_certain_answer_is_finite() -> None:
    pair = scores(0.0, -1000.0)
    pair.chosen.requires_grad_(True)
    loss = orpo_loss(0.1)(pair)[0].sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(pair.chosen.grad).all()


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def batch_of_pairs(count: int = 3) -> dict[str, Any]:
    generator = np.random.default_rng(0)

    def example(prompt: int, answer: int) -> dict[str, Any]:
        ids = generator.integers(3, 50, prompt + answer)
        return {"input_ids": ids, "labels": np.where(np.arange(prompt + answer) < prompt, -100, ids)}

    rows = []
    for n in range(count):
        chosen, rejected = example(3, 4 + n), example(3, 6 - n)
        rows.append({"chosen": chosen, "rejected": rejected, "reference": np.float32([-9.0 - n, -11.0 + n])})
    return collate_pairs(0)(rows)


def test_a_pair_scores_the_same_alone_and_padded(model: Any) -> None:
    batch = batch_of_pairs()
    together = scores_of(model, batch)
    for row in range(6):
        labels = batch["labels"][row]
        length = int((labels != -100).nonzero().max()) + 1
        alone = token_log_probs(model, batch["input_ids"][row : row + 1, :length], labels[None, :length]).sum()
        side = together.chosen if row < 3 else together.rejected
        assert float(side[row % 3]) == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("name", ["sigmoid", "hinge", "ipo", "robust"])
def test_dpo_is_that_of_trl(name: str, model: Any) -> None:
    """TRL's own method, on the same batch, with the reference given."""
    from collections import defaultdict

    from trl import DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    batch = batch_of_pairs()
    settings = DpoSettings(beta=0.3, loss_type=(name,), label_smoothing=0.1 if name == "robust" else 0.0)
    ours, metrics = dpo_loss(settings)(scores_of(model, batch))
    accelerator = SimpleNamespace(
        device="cpu",
        gather_for_metrics=lambda value: value,
        gather=lambda value: value,
        unwrap_model=lambda value: value,
    )
    stand_in = SimpleNamespace(
        model=model, accelerator=accelerator, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", loss_types=[name], loss_weights=[1.0], beta=0.3,
        label_smoothing=settings.label_smoothing, use_weighting=False, _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1, args=SimpleNamespace(), state=SimpleNamespace(num_input_tokens_seen=0),
    )  # fmt: skip
    reference = batch["reference"].chunk(2)
    theirs = DPOTrainer._compute_loss(
        stand_in,
        model,
        {
            "input_ids": batch["input_ids"],
            "attention_mask": torch.ones_like(batch["input_ids"]),
            "completion_mask": (batch["labels"] != -100).long(),
            "ref_chosen_logps": reference[0],
            "ref_rejected_logps": reference[1],
        },
        False,
    )
    assert float(ours.mean()) == pytest.approx(float(theirs), rel=1e-4)
    for metric in ("rewards/chosen", "rewards/margins", "rewards/accuracies"):
        logged = stand_in._metrics["eval"][metric][0]
        assert float(metrics[metric].mean()) == pytest.approx(float(logged), rel=1e-4)


def test_every_method_that_learns_from_pairs_has_its_loss() -> None:
    assert tuple(PAIR_LOSSES) == chosen(lambda method: method.learns is PAIRS)


def test_the_odds_ratio_is_that_of_trl() -> None:
    config_class("ORPO")
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = torch.tensor([-0.5, -1.5]), torch.tensor([-1.0, -0.7])
    stand_in = SimpleNamespace(beta=0.25, accelerator=SimpleNamespace(device="cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(stand_in, chosen, rejected)[0]
    ones, zeros = torch.ones(2), torch.zeros(2)
    ours, _ = orpo_loss(0.25)(Scores(chosen, rejected, ones, ones, zeros, zeros))
    assert torch.allclose(ours, -chosen - theirs)


def test_an_adapter_on_the_last_layers() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    )
    adapted = add_adapter(model, Lora(rank=2, layers=2))
    layers = {name.split(".layers.")[1].split(".")[0] for name, p in adapted.named_parameters() if p.requires_grad}
    assert layers == {"1", "2"}
    with pytest.raises(UserError, match="layers 4: the model has 3"):
        add_adapter(model, Lora(layers=4))


# ---- reward models


@pytest.mark.parametrize("number", range(10))
def test_the_loss_of_a_reward_model_is_that_of_trl(number: int, model: Any) -> None:
    """TRL's own method on scores that are given, and by hand."""
    from collections import defaultdict

    from trl import RewardTrainer

    chance = np.random.default_rng(number)
    chosen, rejected = (torch.tensor(chance.normal(0, 3, 4)) for _ in range(2))
    coefficient = [None, 0.01, 0.5][number % 3]
    losses, metrics = reward_loss(center_coefficient({"center_rewards_coefficient": coefficient}))(
        Scores(chosen, rejected, *(torch.ones(4) for _ in range(4)))
    )
    stand_in = SimpleNamespace(
        model=model, args=SimpleNamespace(center_rewards_coefficient=coefficient), _total_train_tokens=0, _tp_size=1,
        accelerator=SimpleNamespace(gather=lambda value: value, gather_for_metrics=lambda value: value),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
    )  # fmt: skip
    given = torch.cat([chosen, rejected])[:, None]
    theirs = RewardTrainer.compute_loss(stand_in, lambda **_: SimpleNamespace(logits=given), {"attention_mask": given})
    assert float(losses.mean()) == pytest.approx(float(theirs), abs=1e-5)
    by_hand = [
        -math.log(sigmoid(c - r)) + (coefficient or 0) * (c + r) ** 2
        for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True)
    ]
    assert losses.tolist() == pytest.approx(by_hand, abs=1e-6)
    assert float(metrics["rewards/margins"].mean()) == pytest.approx(stand_in._metrics["eval"]["margin"][0], abs=1e-5)
    assert float(metrics["rewards/accuracies"].mean()) == pytest.approx(stand_in._metrics["eval"]["accuracy"][0])


def test_a_text_scores_the_same_alone_and_padded() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=1
    )
    judge = LlamaForSequenceClassification(config).eval()
    batch = batch_of_pairs()
    found = scorer("cpu", torch.float32)(judge, batch)
    for row, mine in enumerate([*found.chosen, *found.rejected]):
        length = int((batch["labels"][row] != -100).nonzero().max()) + 1
        theirs = judge(input_ids=batch["input_ids"][row : row + 1, :length]).logits[0, 0]
        assert float(mine) == pytest.approx(float(theirs), abs=1e-6)


# ---- KTO


def kto_case(number: int) -> tuple[KtoSettings, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten cases: both losses, weights, a batch of good answers alone and one of bad ones alone, z below and above zero."""
    chance = np.random.default_rng(number)
    loss_type = "apo_zero_unpaired" if number % 3 == 2 else "kto"
    settings = KtoSettings(0.05 * (number + 1), loss_type, 1 + number % 2 / 3, 1 + number % 4 / 7)
    ratios = torch.tensor(chance.normal(0, 5, 6))
    good = torch.tensor([[True] * 6, [False] * 6, *[chance.integers(0, 2, 6) == 1 for _ in range(8)]][number])
    return settings, ratios, good, torch.tensor(chance.normal(0, 3))


@pytest.mark.parametrize("number", range(10))
def test_kto_by_hand(number: int) -> None:
    settings, ratios, good, mean = kto_case(number)
    z = mean.clamp(min=0)
    by_hand = []
    for r, right in zip(ratios.tolist(), good.tolist(), strict=True):
        base = float(z) if settings.loss_type == "kto" else 0.0
        value = sigmoid(settings.beta * (r - base if right else base - r))
        by_hand.append((settings.desirable_weight if right else settings.undesirable_weight) * (1 - value))
    assert kto_losses(settings, ratios, good, z).tolist() == pytest.approx(by_hand, abs=1e-9)


class Mock:
    """Answers each forward pass with the next of some log-probabilities."""

    training = False

    def __init__(self, *log_probs: torch.Tensor) -> None:
        self._waiting = list(log_probs)

    def __call__(self, **_: Any) -> Any:
        found = self._waiting.pop(0)
        return SimpleNamespace(log_probs=found, entropy=torch.zeros_like(found), mean_logits=torch.zeros_like(found))


@pytest.mark.parametrize("number", range(10))
def test_kto_is_that_of_trl(number: int) -> None:
    """TRL's own method on log-probabilities that are given."""
    from collections import defaultdict

    from trl import KTOTrainer

    settings, ratios, good, mean = kto_case(number)
    model = Mock(*([mean.repeat(6)[:, None]] if settings.compares else []), ratios[:, None])
    one = torch.ones(6, 2, dtype=torch.int64)
    stand_in = SimpleNamespace(
        model=model, accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda value: value),
        calculate_KL=settings.compares, aux_loss_enabled=False, precompute_ref_logps=True, beta=settings.beta,
        loss_type=settings.loss_type, desirable_weight=settings.desirable_weight, undesirable_weight=settings.undesirable_weight,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    stand_in._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(stand_in, model, batch)
    own = {"input_ids": one, "attention_mask": one, "completion_mask": one, "label": good, "ref_logps": torch.zeros(6)}
    other = {"KL_input_ids": one, "KL_attention_mask": one, "KL_completion_mask": one, "ref_KL_logps": torch.zeros(6)}
    theirs = KTOTrainer._compute_loss(stand_in, model, own | other, False)
    ours = kto_losses(settings, ratios, good, mean.clamp(min=0)).mean()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    metrics = kto_metrics(settings.beta * ratios, ratios, good)
    for name, logged in stand_in._metrics["eval"].items():
        if name.startswith(("rewards/", "logps/")):
            assert float(metrics[name]) == pytest.approx(logged[0], abs=1e-5), name


def test_the_other_answer_to_a_prompt_is_of_another_record(tmp_path: Any) -> None:
    def example(n: int) -> Example:
        return Example(
            [10 + n, 11, 40 + n, 50 + n, 2][: 4 + n % 2], [False, False, True, True, True][: 4 + n % 2], good=n > 2
        )

    examples = [(example(n), 1) for n in range(6)]
    write_split(tmp_path / "train", examples, vocab_size=100, max_length=8, packing=False)
    sequences = Sequences.open(tmp_path / "train", vocab_size=100)
    answers = Mismatched(sequences, seed=1, max_length=4)
    others = []
    for n in range(6):
        own, mixed = answers.parts(n)
        assert own["input_ids"].tolist() == example(n).ids
        assert mixed["input_ids"][:2].tolist() == [10 + n, 11]
        assert mixed["labels"][:2].tolist() == [-100, -100]
        assert mixed["labels"][2:].tolist() == mixed["input_ids"][2:].tolist()
        assert len(mixed["labels"]) <= 4
        assert answers.good(n) == (n > 2)
        others.append(int(mixed["input_ids"][2]) - 40)
    assert sorted(others) == list(range(6))
    assert all(n != other for n, other in enumerate(others))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"loss_type": "sigmoid"}, "use kto or apo_zero_unpaired"),
        ({"beta": 0.0}, "not above 0"),
        ({"undesirable_weight": -1.0}, "is negative"),
    ],
)
def test_wrong_arguments_of_kto_are_told(extra: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        kto_settings(extra)


# ---- PPO


def test_gae_by_hand() -> None:
    """Two responses, of three tokens and of one. gamma 0.5, lambda 0.5, so that every power shows."""
    rewards = torch.tensor([[0.0, 0.0, 1.0], [2.0, 9.0, 9.0]])
    values = torch.tensor([[0.4, 0.2, 0.6], [1.5, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=0.5, lam=0.5)
    d2 = 1 - 0.6
    d1 = 0.5 * 0.6 - 0.2
    d0 = 0.5 * 0.2 - 0.4
    wanted = torch.tensor([[d0 + 0.25 * d1 + 0.0625 * d2, d1 + 0.25 * d2, d2], [0.5, 0.0, 0.0]])
    assert torch.allclose(advantages, wanted)
    assert torch.allclose(returns, (wanted + values) * mask)


def test_whitened() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]])
    white = whitened(values, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white[mask].var(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert white[0, 2] == 0


def test_the_price_of_divergence_follows_it() -> None:
    settings = PPOConfig(kl_target=6.0, kl_horizon=100)
    assert next_kl_coef(0.1, 60.0, settings, responses=10) == pytest.approx(0.1 * 1.02), "at most a fifth"
    assert next_kl_coef(0.1, 6.6, settings, responses=10) == pytest.approx(0.1 * 1.01)
    assert next_kl_coef(0.1, 0.0, settings, responses=10) == pytest.approx(0.1 * 0.98)
    assert next_kl_coef(0.1, 60.0, PPOConfig(kl_target=None), responses=10) == 0.1


def made(model: Any, **named: Any) -> Responses:
    import contextlib

    prompts = [np.array([5, 6, 7]), np.array([8]), np.array([9, 10, 11, 12, 13])]
    settings = {"length": 8, "temperature": 1.0, "ends": [2, 20, 21, 22, 23], "padding_id": 0, "batch_size": 2}
    return sample(model, prompts, device="cpu", autocast=contextlib.nullcontext, seed=[1, 2], **(settings | named))


def test_responses_are_repeatable_and_leave_the_generator_alone(model: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = made(model), made(model)
    assert torch.equal(one.input_ids, other.input_ids)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one.input_ids, made(model, temperature=5.0).input_ids)


def test_responses_end_and_are_masked(model: Any) -> None:
    responses = made(model, ends=range(2, 30), length=12)
    prompt = responses.attention_mask.shape[1] - responses.length
    for row in range(3):
        tokens = responses.input_ids[row, prompt:][responses.mask[row]].tolist()
        assert responses.ended[row] == (tokens[-1] in range(2, 30))
        assert not any(token in range(2, 30) for token in tokens[:-1])
    assert responses.ended.any()


def test_padding_does_not_change_a_probability(model: Any) -> None:
    responses = made(model)
    together, entropy = forward(model, responses, temperature=0.7)
    prompt = responses.attention_mask.shape[1] - responses.length
    for row in range(3):
        ids = responses.input_ids[row][responses.attention_mask[row].bool()]
        length = int(responses.mask[row].sum())
        logits = model(input_ids=ids[None]).logits[0, len(ids) - length - 1 : -1] / 0.7
        alone = torch.log_softmax(logits, -1)
        wanted = alone.gather(-1, ids[-length:, None])[:, 0]
        assert torch.allclose(together[row, :length], wanted, atol=1e-5)
        assert torch.allclose(entropy[row, :length], -(alone.exp() * alone).sum(-1), atol=1e-4)
    cut = responses.rows(torch.tensor([1]))
    assert cut.attention_mask.shape[1] - cut.length == 1 < prompt
    length = cut.length
    assert torch.allclose(forward(model, cut, temperature=0.7)[0][0], together[1, :length], atol=1e-5)


@pytest.mark.parametrize(
    ("reward", "text", "answer", "score"),
    [
        ({"exactMatch": {}}, " 42\n", "42", 1.0),
        ({"exactMatch": {}}, "Paris", "paris", 0.0),
        ({"exactMatch": {"ignoreCase": True}}, "Paris", "paris", 1.0),
        ({"contains": {}}, "it is 42.", "42", 1.0),
        ({"contains": {"text": "node"}}, "the pod", "node", 0.0),
        ({"regex": {"pattern": "^(yes|no)$"}}, "no", "", 1.0),
        ({"regex": {"pattern": "^(yes|no)$"}}, "no way", "", 0.0),
        ({"jsonValid": {}}, '{"a": [1]}', "", 1.0),
        ({"jsonValid": {}}, '{"a": [1}', "", 0.0),
        ({"jsonValid": {}}, "[" * 100_000, "", 0.0),
        ({"length": {"target": 4}}, "", "", 0.75),
        ({"length": {"target": 1}}, "", "", 0.0),
    ],
)
def test_rewards(reward: dict[str, Any], text: str, answer: str, score: float) -> None:
    _, judge = built_in(Reward.model_validate(reward), field="f")
    assert judge(Response([1], [7, 8, 9], text, answer)) == score


def test_scores_are_weighted_and_added() -> None:
    judge = Judge([("a", 2.0, lambda r: 1.0), ("b", -0.5, lambda r: float(len(r.ids)))])
    totals, means = judge([Response([], [1], "", ""), Response([], [1, 2, 3], "", "")])
    assert totals == [1.5, 0.5]
    assert means == {"rewards/a": 1.0, "rewards/b": 2.0}
