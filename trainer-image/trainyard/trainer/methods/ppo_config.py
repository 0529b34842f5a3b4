"""The arguments of method PPO, with the names that TRL's PPOConfig had for them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import TrainingArguments


@dataclass
class PPOConfig(TrainingArguments):  # type: ignore[misc]
    """What `extraArgs` may name under method PPO, beside the arguments of transformers' Trainer."""

    response_length: int = 64
    """Tokens that are generated at most."""
    temperature: float = 1.0
    """Logits are divided by it, in generating and in learning."""
    num_mini_batches: int = 4
    """Optimizer steps per pass over the responses. Generated at a time are as many responses as these steps take."""
    num_ppo_epochs: int = 4
    """Passes over the responses before new ones are generated."""
    kl_coef: float = 0.05
    """Price of a nat of divergence from the reference; where it starts, if it is adapted."""
    kl_target: float | None = 6.0
    """Divergence per response (in nats) that the price is adapted to; null keeps the price."""
    kl_horizon: int = 10000
    """Responses in which the price can change by a fifth."""
    cliprange: float = 0.2
    """How far the probability of a token may move from what it was when the response was generated."""
    cliprange_value: float = 0.2
    """The same for the predicted value."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Lambda of generalized advantage estimation."""
    missing_eos_penalty: float | None = None
    """Taken from the score of a response that did not come to an end."""
