"""The arithmetic of GRPO and RLOO against numbers worked out by hand, and against TRL's own code."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from trainyard.trainer.errors import UserError
from trainyard.trainer.methods.grpo import Grpo, advantages_of, divisor, summed_loss
from trainyard.trainer.methods.grpo_config import GRPOConfig, RLOOConfig, grpo_settings, rloo_settings
from trainyard.trainer.methods.rollouts import Responses

pytestmark = pytest.mark.slow
LENGTH = 7


def case(number: int) -> dict[str, Any]:
    """Log-probabilities that have moved away from where the completions were drawn, of six completions of different length."""
    chance = np.random.default_rng(number)
    own, old, reference = (torch.tensor(chance.normal(-2, 0.3, (6, LENGTH))) for _ in range(3))
    counted = torch.arange(LENGTH) < torch.tensor(chance.integers(1, LENGTH + 1, (6, 1)))
    return {
        "log_probs": own,
        "old": None if number == 3 else old,
        "reference": reference,
        "advantages": torch.tensor(chance.normal(0, 1, 6)),
        "counted": counted,
    }


GRPO_CASES = [
    GRPOConfig(loss_type="dapo", epsilon_high=0.28),
    GRPOConfig(loss_type="dapo", beta=0.04),
    GRPOConfig(loss_type="grpo"),
    GRPOConfig(loss_type="grpo", beta=0.1),
    GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-2, epsilon_high=4e-2),
    GRPOConfig(loss_type="dr_grpo", max_completion_length=16),
    GRPOConfig(loss_type="dr_grpo", beta=0.5, max_completion_length=16),
    GRPOConfig(loss_type="dapo", importance_sampling_level="sequence"),
    GRPOConfig(loss_type="dapo", epsilon=0.05),
    GRPOConfig(loss_type="grpo", epsilon=0.4, epsilon_high=0.1, beta=0.01),
]


def stand_in(trainer: Any, settings: Any, log_probs: torch.Tensor) -> Any:
    """As much of TRL's trainer as its loss asks for."""
    high = settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
    made = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, torch.zeros_like(log_probs), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, beta=settings.beta,
        importance_sampling_level=getattr(settings, "importance_sampling_level", None),
        loss_type=getattr(settings, "loss_type", None),
        epsilon_low=settings.epsilon, epsilon_high=high, model=SimpleNamespace(training=False), _entropy_bonus_enabled=False,
        max_completion_length=settings.max_completion_length, args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda value: value, reduce=lambda value, reduction: value, device="cpu"
        ),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
    )  # fmt: skip
    made.compute = lambda inputs: trainer._compute_loss(made, None, inputs)
    return made


def inputs_of(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    ids, counted = torch.ones(6, LENGTH, dtype=torch.int64), given["counted"].long()
    return {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": counted,
        "advantages": given["advantages"], "ref_per_token_logps": given["reference"], "num_items_in_batch": counted.sum(), **more,
    }  # fmt: skip


def ours(settings: Any, given: dict[str, Any]) -> tuple[float, dict[str, float]]:
    values = dict(given)
    if settings.beta == 0:
        values["reference"] = None
    total, metrics = summed_loss(settings, **values)
    return float(total / divisor(settings, given["counted"])), {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("number", range(10))
def test_grpo_is_that_of_trl(number: int) -> None:
    from trl import GRPOTrainer

    settings, given = GRPO_CASES[number], case(number)
    theirs = stand_in(GRPOTrainer, settings, given["log_probs"])
    more = {} if given["old"] is None else {"old_per_token_logps": given["old"]}
    wanted = float(theirs.compute(inputs_of(given, **more)))
    loss, metrics = ours(settings, given)
    assert loss == pytest.approx(wanted, abs=1e-5)
    if settings.beta:
        assert metrics["kl"] == pytest.approx(theirs._metrics["eval"]["kl"][0], abs=1e-5)
    if settings.importance_sampling_level == "token":
        assert metrics["clip_ratio/region_mean"] == pytest.approx(
            theirs._metrics["eval"]["clip_ratio/region_mean"][0], abs=1e-6
        )


@pytest.mark.parametrize("number", range(10))
def test_grpo_by_hand(number: int) -> None:
    settings, given = GRPO_CASES[number], case(number)
    high = settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
    rows = []
    for row in range(6):
        tokens = [t for t in range(LENGTH) if given["counted"][row, t]]
        own = [float(given["log_probs"][row, t]) for t in tokens]
        old = own if given["old"] is None else [float(given["old"][row, t]) for t in tokens]
        apart = [float(given["reference"][row, t]) - p for t, p in zip(tokens, own, strict=True)]
        moved = [p - o for p, o in zip(own, old, strict=True)]
        if settings.importance_sampling_level == "sequence":
            moved = [statistics.fmean(moved)] * len(tokens)
        advantage = float(given["advantages"][row])
        losses = []
        for difference, gap in zip(moved, apart, strict=True):
            q = math.exp(difference)
            bounded = min(max(q, 1 - settings.epsilon), 1 + high)
            losses.append(-min(q * advantage, bounded * advantage) + settings.beta * (math.exp(gap) - gap - 1))
        rows.append(losses)
    every = [loss for losses in rows for loss in losses]
    by_hand = {
        "dapo": sum(every) / len(every),
        "grpo": statistics.fmean(statistics.fmean(losses) for losses in rows),
        "dr_grpo": sum(every) / (6 * settings.max_completion_length),
    }[settings.loss_type]
    assert ours(settings, given)[0] == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("number", range(10))
def test_rloo_is_that_of_trl_and_by_hand(number: int) -> None:
    from trl import RLOOTrainer

    settings = RLOOConfig(epsilon=0.05 * (number + 1), epsilon_high=[None, 0.3][number % 2])
    given = case(number)
    counted = given["counted"]
    old = given["log_probs"] if given["old"] is None else given["old"]
    theirs = stand_in(RLOOTrainer, settings, given["log_probs"])
    wanted = theirs.compute(inputs_of(given, old_logps=(old * counted).sum(1)))
    high = settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
    by_hand = []
    for row in range(6):
        q = math.exp(float(((given["log_probs"] - old) * counted)[row].sum()))
        advantage = float(given["advantages"][row])
        by_hand.append(-min(q * advantage, min(max(q, 1 - settings.epsilon), 1 + high) * advantage))
    loss, _ = ours(settings, given)
    assert loss == pytest.approx(float(wanted), abs=1e-5)
    assert loss == pytest.approx(statistics.fmean(by_hand), abs=1e-9)


def test_advantages_by_hand() -> None:
    """Groups of two: 1 and 3 have mean 2 and deviation sqrt 2; equal rewards say nothing."""
    scores = torch.tensor([1.0, 3.0, 5.0, 5.0])
    unit = 1 / (math.sqrt(2) + 1e-4)
    assert advantages_of(GRPOConfig(num_generations=2), scores).tolist() == pytest.approx([-unit, unit, 0, 0])
    assert advantages_of(GRPOConfig(num_generations=2, scale_rewards="none"), scores).tolist() == [-1, 1, 0, 0]
    whole = statistics.stdev([1, 3, 5, 5]) + 1e-4
    batch = advantages_of(GRPOConfig(num_generations=2, scale_rewards="batch"), scores).tolist()
    assert batch == pytest.approx([-1 / whole, 1 / whole, 0, 0])
    # leave one out: 1 - 3, 3 - 1; of four: 1 - 13/3, 3 - 11/3, 5 - 3, 5 - 3
    assert advantages_of(RLOOConfig(num_generations=2), scores).tolist() == [-2, 2, 0, 0]
    four = advantages_of(RLOOConfig(num_generations=4), scores).tolist()
    assert four == pytest.approx([1 - 13 / 3, 3 - 11 / 3, 2, 2])
    normal = advantages_of(RLOOConfig(num_generations=4, normalize_advantages=True), scores)
    assert (float(normal.mean()), float(normal.std())) == pytest.approx((0, 1), abs=1e-3)


def test_a_micro_batch_is_its_share_of_the_step() -> None:
    given = case(1)
    for settings in (*GRPO_CASES[:6], RLOOConfig()):
        values = {
            **given,
            "reference": given["reference"] if settings.beta and isinstance(settings, GRPOConfig) else None,
        }
        whole, _ = summed_loss(settings, **values)
        parts = [
            summed_loss(settings, **{name: None if v is None else v[rows] for name, v in values.items()})[0]
            for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
        ]
        assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-9)


@pytest.mark.parametrize(
    ("read", "extra", "told"),
    [
        (grpo_settings, {"num_generations": 1}, "use 2 or more"),
        (grpo_settings, {"loss_type": "bnpo"}, "use dapo, grpo, dr_grpo"),
        (grpo_settings, {"scale_rewards": "yes"}, "use group, batch, none"),
        (grpo_settings, {"beta": -0.1}, "it has to be 0 or more"),
        (rloo_settings, {"epsilon": 0.0}, "it has to be above 0"),
        (rloo_settings, {"max_completion_length": 0}, "it has to be above 0"),
    ],
)
def test_wrong_arguments_are_told(read: Any, extra: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        read(extra)
    assert told in caught.value.hint


def test_groups_that_are_scored_alike_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of two: the second is alike at first, and again once; the first is never touched."""
    settings = GRPOConfig(num_generations=2, max_resamples=3)
    means = SimpleNamespace(
        micro_batch=2, accumulation=2, seed=1, prompts=list(range(50)), tokenizer=SimpleNamespace(pad_token_id=0)
    )
    method = Grpo(settings, cast("Any", means))
    asked: list[Any] = []

    def responses(*tokens: int) -> Responses:
        ids = torch.tensor(tokens)[:, None].repeat(1, 2)
        mask = torch.ones(len(tokens), 1, dtype=torch.bool)
        return Responses(ids, torch.ones_like(ids), mask, mask[:, 0])

    def respond(model: Any, prompts: Any, chosen: list[int], seed: list[int], batch_size: int) -> Responses:
        asked.append((chosen, seed))
        return responses(*([20, 20] if len(asked) == 1 else [30, 31]))

    def score(prompts: Any, chosen: list[int], made: Responses) -> Any:
        return made.input_ids[:, 1].float(), {}

    monkeypatch.setattr(method, "respond", respond)
    monkeypatch.setattr(method, "score", score)
    scores = torch.tensor([1.0, 2.0, 7.0, 7.0])
    made, found, metrics = method._resampled(None, 4, responses(1, 2, 7, 7), scores)
    assert found.tolist() == [1, 2, 30, 31]
    assert made.input_ids[:, 1].tolist() == [1, 2, 30, 31]
    assert metrics == {"resampled_groups": 2.0}
    assert [seed[1:] for _, seed in asked] == [[4, 0], [4, 1]]
    assert all(chosen[0] == chosen[1] for chosen, _ in asked)
    first, asked = asked[0], []
    method._resampled(None, 4, responses(1, 2, 7, 7), scores)
    assert asked[0] == first, "the same prompt and seed when it is done again"
    assert scores.tolist() == [1.0, 2.0, 7.0, 7.0]


def test_a_number_of_resamples_is_not_negative() -> None:
    with pytest.raises(UserError, match="max_resamples -1 is out of range"):
        grpo_settings({"max_resamples": -1})
