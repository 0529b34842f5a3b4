"""Proximal policy optimization: generate responses, score them, and make the better ones likelier, in small steps.

After Schulman et al. 2017 (arXiv 1707.06347) in the form of Ziegler et al. 2019 (arXiv 1909.08593). One iteration is

    prompts -> responses -> scores          rewards.py; once per response, at its last token
    penalty per token: kl_coef * (log p - log p_reference)
    advantages by GAE from the value head, whitened
    num_ppo_epochs x num_mini_batches optimizer steps on the clipped objective and the clipped value loss
    kl_coef follows the divergence that was seen

The value head is one linear layer over the last hidden state, zero at first; it is saved in checkpoints and not in the
result. What is shared with other methods that generate stands in `generating.py`.

An optimizer step here is one for everything else too (`maxSteps`, schedule, checkpoints, logs). A checkpoint in the middle
of an iteration holds its responses; at the border between two the next ones follow from the weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainyard.trainer.methods.batches import TOKEN_COUNT
from trainyard.trainer.methods.generating import MINI_BATCHES, SAMPLING, Generating, Means, turn_off_dropout
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.ppo_config import PPOConfig
from trainyard.trainer.methods.rollouts import Responses, forward

STATE_FILE = "ppo.pt"


@dataclass(frozen=True)
class Experience:
    """What an iteration learns from. Tensors [responses, length] unless said otherwise, FP32, on the CPU."""

    iteration: int
    responses: Responses
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    metrics: dict[str, float]
    next_kl_coef: float


class ValueHead(torch.nn.Module):
    """Hidden state to the expected reward from here on."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(hidden_size, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            values: torch.Tensor = self.linear(hidden.float()).squeeze(-1)
        return values


class Ppo(Generating):
    """The method, as `CommittingTrainer` wants it."""

    def __init__(self, settings: PPOConfig, means: Means) -> None:
        super().__init__(means)
        self._settings = settings
        self._head: ValueHead | None = None
        self._experience: Experience | None = None

    # ---- the model

    def attach(self, model: Any, checkpoint: Path | None) -> None:
        """Give the model its value head, and go on from a checkpoint."""
        turn_off_dropout(model)
        self._head = ValueHead(model.get_output_embeddings().weight.shape[1]).to(self.means.device)
        if checkpoint is not None:
            saved = torch.load(checkpoint / STATE_FILE, weights_only=True, map_location="cpu")
            self._head.load_state_dict(saved["value_head"])
            if (experience := saved["experience"]) is not None:
                self._experience = Experience(**{**experience, "responses": Responses(**experience["responses"])})
        model.value_head = self._head
        own = {f"value_head.{name}" for name in self._head.state_dict()}
        model._keys_to_ignore_on_save = own | set(getattr(model, "_keys_to_ignore_on_save", None) or ())

    def write(self, folder: Path) -> None:
        """Value head and responses."""
        assert self._head is not None
        head = {name: value.cpu() for name, value in self._head.state_dict().items()}
        experience = asdict(self._experience) if self._experience else None
        torch.save({"value_head": head, "experience": experience}, folder / STATE_FILE)

    # ---- one optimizer step

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        """Micro-batches of the responses of this step's iteration, which are generated first if it has just begun."""
        iteration, number = divmod(step, self._settings.steps)
        experience = self._experience
        if experience is None or (experience.iteration, len(experience.log_probs)) != (
            iteration,
            self._responses_at_once,
        ):
            experience = self._experience = self.generate(model, iteration)
        passes, mini_batch = divmod(number, self._settings.num_mini_batches)
        order = self.random(MINI_BATCHES, iteration, passes).permutation(len(experience.log_probs))
        size = self.means.micro_batch * self.means.accumulation
        rows = torch.from_numpy(order[mini_batch * size : (mini_batch + 1) * size])
        batches = [self._batch(experience, part) for part in torch.split(rows, self.means.micro_batch)]
        return batches, int(experience.responses.mask[rows].sum())

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Clipped objective and clipped value loss, summed over the tokens of the responses and divided by `items`."""
        settings, mask = self._settings, inputs["mask"]
        assert self._experience is not None
        responses = Responses(inputs["input_ids"], inputs["attention_mask"], mask, inputs["ended"])
        log_probs, entropy, values = forward(model, responses, temperature=settings.temperature, values=self._head)
        ratio = torch.exp(log_probs - inputs["log_probs"])
        bounded = ratio.clamp(1 - settings.cliprange, 1 + settings.cliprange)
        policy = torch.maximum(-inputs["advantages"] * ratio, -inputs["advantages"] * bounded)
        near = inputs["values"] + (values - inputs["values"]).clamp(-settings.cliprange_value, settings.cliprange_value)
        value = 0.5 * torch.maximum((values - inputs["returns"]) ** 2, (near - inputs["returns"]) ** 2)
        loss = ((policy + settings.vf_coef * value) * mask).sum() / (items or mask.sum())

        def mean(tensor: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor((tensor.detach() * mask).sum() / mask.sum().clamp(min=1))

        metrics = {
            "loss/policy_avg": mean(policy),
            "loss/value_avg": mean(value),
            "policy/approxkl_avg": mean(0.5 * (log_probs - inputs["log_probs"]) ** 2),
            "policy/clipfrac_avg": mean((ratio != bounded).float()),
            "objective/entropy": mean(entropy),
        }
        seen = {name: loss.new_tensor(number) for name, number in self._experience.metrics.items()}
        return loss, metrics | seen

    def _batch(self, experience: Experience, rows: torch.Tensor) -> Batch:
        responses = experience.responses.rows(rows)
        tables = {name: getattr(experience, name) for name in ("log_probs", "values", "advantages", "returns")}
        return {
            "input_ids": responses.input_ids,
            "attention_mask": responses.attention_mask,
            "mask": responses.mask,
            "ended": responses.ended,
            **{name: table[rows, : responses.length] for name, table in tables.items()},
            TOKEN_COUNT: int(responses.attention_mask.sum()),
        }

    # ---- responses

    def generate(self, model: Any, iteration: int) -> Experience:
        """The experience of an iteration: responses with probabilities, values, scores and advantages."""
        settings, means = self._settings, self.means
        assert means.prompts is not None
        count = self._responses_at_once
        chosen = [self.prompt_of(iteration * count + n) for n in range(count)]
        responses = self.respond(model, means.prompts, chosen, [SAMPLING, iteration], means.micro_batch)
        log_probs, reference, values = self.measure(model, responses, means.micro_batch, head=self._head)
        scores, metrics = self.score(means.prompts, chosen, responses)
        # One that stays as it is may have been changed since the checkpoint.
        adapted = self._experience if settings.kl_target is not None else None
        kl_coef = adapted.next_kl_coef if adapted else settings.kl_coef
        mask = responses.mask
        divergence = (log_probs - reference) * mask
        rewards = -kl_coef * divergence
        last = mask.sum(dim=1) - 1
        rewards[torch.arange(count), last] += scores
        advantages, returns = advantages_and_returns(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
        kl = float(divergence.sum(dim=1).mean())
        metrics |= {
            "objective/kl": kl,
            "objective/kl_coef": kl_coef,
            "objective/rlhf_reward": float(rewards.sum(dim=1).mean()),
        }
        return Experience(
            iteration=iteration,
            responses=responses,
            log_probs=log_probs,
            values=values,
            advantages=whitened(advantages, mask),
            returns=returns,
            metrics=metrics,
            next_kl_coef=next_kl_coef(kl_coef, kl, settings, responses=count),
        )

    @property
    def _responses_at_once(self) -> int:
        return self.means.micro_batch * self.means.accumulation * self._settings.num_mini_batches


def advantages_and_returns(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (Schulman et al. 2015, arXiv 1506.02438), all [responses, length].

    With d_t = r_t + gamma v_(t+1) - v_t, the advantage is the sum of (gamma lam)^k d_(t+k). Behind the end all is 0.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(values)
    following = values.new_zeros(len(values))
    next_value = values.new_zeros(len(values))
    for position in reversed(range(values.shape[1])):
        delta = rewards[:, position] + gamma * next_value - values[:, position]
        following = (delta + gamma * lam * following) * mask[:, position]
        advantages[:, position] = following
        next_value = values[:, position]
    return advantages, (advantages + values) * mask


def whitened(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the positions of `mask`, 0 elsewhere."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    variance = (((values - mean) ** 2) * mask).sum() / count
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def next_kl_coef(kl_coef: float, kl: float, settings: PPOConfig, *, responses: int) -> float:
    """The proportional controller of Ziegler et al. 2019, section 2.2."""
    if settings.kl_target is None:
        return kl_coef
    error = min(max(kl / settings.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * responses / settings.kl_horizon)
