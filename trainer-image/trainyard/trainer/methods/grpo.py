"""Learning from how the answers to one prompt compare: GRPO and RLOO. There is no value head; the other answers are the measure.

    prompts, each num_generations times -> completions -> scores -> advantages within the group -> num_iterations optimizer steps

GRPO (Shao et al. 2024, arXiv 2402.03300), with q = p(token) / p_old(token) and A = (score - mean) / (deviation + 1e-4) of the group:

    token loss   -min(q A, clip(q, 1 - epsilon, 1 + epsilon_high) A)  +  beta (p_ref / p - log(p_ref / p) - 1)
    grpo         mean over the tokens of a completion, then over completions
    dapo         mean over all tokens of the step               Yu et al. 2025, arXiv 2503.14476
    dr_grpo      sum of the tokens / (completions x max_completion_length)       Liu et al. 2025, arXiv 2503.20783

RLOO (Ahmadian et al. 2024, arXiv 2402.14740): the score, less beta times the divergence of the completion, less the mean of the other
completions' is the advantage of the whole completion, whose probability is clipped as one. Names and formulas are TRL's.

With one optimizer step on each batch of completions old and new probabilities are the same number, so they are not measured
beforehand. A checkpoint between two steps on the same completions holds these; at the border the next ones follow from the
weights, the seed and the step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainyard.trainer.methods.batches import TOKEN_COUNT
from trainyard.trainer.methods.generating import RESAMPLING, SAMPLING, Generating, Means, turn_off_dropout
from trainyard.trainer.methods.grpo_config import Grouped, GRPOConfig, RLOOConfig
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.rollouts import Responses, forward, joined

STATE_FILE = "grpo.pt"
SMALLEST = 1e-8
"""Rewards that deviate less are all alike."""
SMALL = 1e-4
"""Added to a deviation that is divided by."""


@dataclass(frozen=True)
class Comparison:
    """What some optimizer steps learn from. Tensors [completions, length], FP32, on the CPU; None where they are not needed."""

    iteration: int
    responses: Responses
    advantages: torch.Tensor
    """[completions]"""
    log_probs: torch.Tensor | None
    reference: torch.Tensor | None
    metrics: dict[str, float]


class Grpo(Generating):
    """Both methods, as `CommittingTrainer` wants them."""

    def __init__(self, settings: Grouped, means: Means) -> None:
        super().__init__(means)
        self._settings = settings
        self._comparison: Comparison | None = None

    def attach(self, model: Any, checkpoint: Path | None) -> None:
        """Prepare the model, and go on from a checkpoint."""
        turn_off_dropout(model)
        if checkpoint is not None:
            saved = torch.load(checkpoint / STATE_FILE, weights_only=True, map_location="cpu")
            if saved is not None:
                self._comparison = Comparison(**{**saved, "responses": Responses(**saved["responses"])})

    def write(self, folder: Path) -> None:
        """The completions under way."""
        torch.save(asdict(self._comparison) if self._comparison else None, folder / STATE_FILE)

    def batches(self, model: Any, given: list[Batch], *, step: int) -> tuple[list[Batch], int]:
        """Micro-batches of the step's completions, which are generated first if they are not there."""
        iteration = step // self._settings.num_iterations
        found = self._comparison
        if found is None or (found.iteration, len(found.advantages)) != (iteration, self._at_once):
            found = self._comparison = self.generate(model, iteration)
        rows = torch.split(torch.arange(self._at_once), self.means.micro_batch)
        return [self._batch(found, part) for part in rows], divisor(self._settings, self._counted(found.responses))

    def loss(self, model: Any, inputs: Batch, items: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mask = inputs["mask"]
        responses = Responses(inputs["input_ids"], inputs["attention_mask"], mask, inputs["ended"])
        log_probs, entropy = forward(model, responses, temperature=self.means.temperature)
        counted = self._counted(responses)
        total, metrics = summed_loss(
            self._settings, log_probs, inputs.get("log_probs"), inputs.get("reference"), inputs["advantages"], counted
        )
        metrics["objective/entropy"] = (entropy * mask).sum() / mask.sum().clamp(min=1)
        assert self._comparison is not None
        seen = {name: total.new_tensor(number) for name, number in self._comparison.metrics.items()}
        return total / (items or divisor(self._settings, counted)), metrics | seen

    def generate(self, model: Any, iteration: int) -> Comparison:
        """Completions of the next prompts, with scores and advantages."""
        settings, means = self._settings, self.means
        assert means.prompts is not None
        group, count = settings.num_generations, self._at_once
        first = iteration * (count // group)
        chosen = [self.prompt_of(first + n // group) for n in range(count)]
        responses = self.respond(model, means.prompts, chosen, [SAMPLING, iteration], means.micro_batch)
        scores, metrics = self.score(means.prompts, chosen, responses)
        if getattr(settings, "max_resamples", 0):
            responses, scores, more = self._resampled(model, iteration, responses, scores)
            metrics |= more
        compares = settings.beta != 0
        log_probs = reference = None
        if compares or settings.num_iterations > 1:
            log_probs, *others = self.measure(model, responses, means.micro_batch, compares=compares)
            reference = others[0] if others else None
        if reference is not None and log_probs is not None:
            divergence = ((log_probs - reference) * responses.mask).sum(dim=1)
            metrics["objective/kl"] = float(divergence.mean())
            if isinstance(settings, RLOOConfig):
                scores, reference = scores - settings.beta * divergence, None
        deviation = scores.view(-1, group).std(dim=1)
        metrics |= {
            "reward_std": float(deviation.mean()),
            "frac_reward_zero_std": float((deviation < SMALLEST).float().mean()),
        }
        if settings.num_iterations == 1:
            log_probs = None
        return Comparison(iteration, responses, advantages_of(settings, scores), log_probs, reference, metrics)

    def _resampled(
        self, model: Any, iteration: int, responses: Responses, scores: torch.Tensor
    ) -> tuple[Responses, torch.Tensor, dict[str, float]]:
        """The same with other prompts in the place of those that nothing can be learned from. Which ones depends on the seed, the
        iteration and the try alone. Metrics of rewards stay those of the first draw, which no choice has made better."""
        settings, prompts, padding = self._settings, self.means.prompts, self.means.tokenizer.pad_token_id
        assert isinstance(settings, GRPOConfig)
        assert prompts is not None
        group, drawn = settings.num_generations, 0
        parts = list(map(responses.rows, torch.split(torch.arange(self._at_once), group)))
        scores = scores.clone()
        for attempt in range(settings.max_resamples):
            alike = (scores.view(-1, group).std(dim=1) < SMALLEST).nonzero()[:, 0].tolist()
            if not alike:
                break
            drawn += len(alike)
            indices = self.random(RESAMPLING, iteration, attempt).integers(len(prompts), size=len(alike))
            chosen = [int(index) for index in indices for _ in range(group)]
            fresh = self.respond(model, prompts, chosen, [RESAMPLING, iteration, attempt], self.means.micro_batch)
            found, _ = self.score(prompts, chosen, fresh)
            for number, place in enumerate(alike):
                rows = torch.arange(number * group, (number + 1) * group)
                parts[place] = fresh.rows(rows)
                scores[place * group : (place + 1) * group] = found[rows]
        return joined(parts, padding), scores, {"resampled_groups": float(drawn)}

    @property
    def _at_once(self) -> int:
        return self.means.micro_batch * self.means.accumulation

    def _counted(self, responses: Responses) -> torch.Tensor:
        """The tokens that are learned from."""
        if self._settings.mask_truncated_completions:
            return responses.mask & responses.ended[:, None]
        return responses.mask

    def _batch(self, found: Comparison, rows: torch.Tensor) -> Batch:
        responses = found.responses.rows(rows)
        tables = {"log_probs": found.log_probs, "reference": found.reference}
        return {
            "input_ids": responses.input_ids,
            "attention_mask": responses.attention_mask,
            "mask": responses.mask,
            "ended": responses.ended,
            "advantages": found.advantages[rows],
            **{name: table[rows, : responses.length] for name, table in tables.items() if table is not None},
            TOKEN_COUNT: int(responses.attention_mask.sum()),
        }


def advantages_of(settings: Grouped, scores: torch.Tensor) -> torch.Tensor:
    """Of each completion [completions], from the scores of groups that stand one after the other."""
    grouped = scores.view(-1, settings.num_generations)
    if isinstance(settings, RLOOConfig):
        others = (grouped.sum(dim=1, keepdim=True) - grouped) / (settings.num_generations - 1)
        advantages = (grouped - others).view(-1)
        if settings.normalize_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std() + SMALL)
        return advantages
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    if settings.scale_rewards == "group":
        centred = centred / (grouped.std(dim=1, keepdim=True) + SMALL)
    elif settings.scale_rewards == "batch":
        centred = centred / (scores.std() + SMALL)
    return centred.view(-1)


def divisor(settings: Grouped, counted: torch.Tensor) -> int:
    """What the sum of losses is divided by, for the completions of `counted` [completions, length]."""
    if isinstance(settings, GRPOConfig):
        if settings.loss_type == "dapo":
            return max(1, int(counted.sum()))
        if settings.loss_type == "dr_grpo":
            return len(counted) * settings.max_completion_length
    return len(counted)


def summed_loss(
    settings: Grouped,
    log_probs: torch.Tensor,
    old: torch.Tensor | None,
    reference: torch.Tensor | None,
    advantages: torch.Tensor,
    counted: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Sum of the losses, to be divided by `divisor`, and metrics. All [completions, length] but `advantages` [completions]; without
    `old`, the probabilities are those that the completions were drawn with."""
    low, high = settings.epsilon, settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
    difference = log_probs - (log_probs.detach() if old is None else old)
    advantages, tokens = advantages[:, None], counted.sum(dim=1, keepdim=True)
    whole = isinstance(settings, RLOOConfig)
    if whole:
        difference = (difference * counted).sum(dim=1, keepdim=True)
    elif isinstance(settings, GRPOConfig) and settings.importance_sampling_level == "sequence":
        difference = (difference * counted).sum(dim=1, keepdim=True) / tokens.clamp(min=1)
    ratio = torch.exp(difference)
    losses = -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    clipped = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    metrics = {}
    if not whole and reference is not None:
        apart = reference - log_probs
        divergence = torch.exp(apart) - apart - 1
        losses = losses + settings.beta * divergence
        metrics["kl"] = (divergence.detach() * counted).sum() / tokens.sum().clamp(min=1)
    share = clipped.float().expand_as(log_probs) * counted
    metrics["clip_ratio/region_mean"] = share.sum() / tokens.sum().clamp(min=1)
    if whole:
        return losses.sum(), metrics
    losses = losses * counted
    if isinstance(settings, GRPOConfig) and settings.loss_type == "grpo":
        return (losses.sum(dim=1, keepdim=True) / tokens.clamp(min=1)).sum(), metrics
    return losses.sum(), metrics
