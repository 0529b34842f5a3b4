"""The arguments of method PPO that are its own, with the names that TRL's PPOConfig had for them, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from trainyard.trainer.errors import invalid_config

FIELD = "spec.training.extraArgs"


@dataclass(frozen=True)
class PPOConfig:
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

    @property
    def steps(self) -> int:
        """Optimizer steps between two generations."""
        return self.num_mini_batches * self.num_ppo_epochs


POSITIVE = (
    "response_length", "temperature", "num_mini_batches", "num_ppo_epochs", "kl_target", "kl_horizon", "cliprange", "cliprange_value",
)  # fmt: skip
SHARES = ("gamma", "lam")


def ppo_settings(extra: dict[str, Any]) -> PPOConfig:
    """From checked extra arguments.

    Raises:
        UserError: a value is out of range.
    """
    own = {field.name for field in fields(PPOConfig)}
    settings = PPOConfig(**{name: value for name, value in extra.items() if name in own})
    for name in sorted(own):
        value = getattr(settings, name)
        if value is None:
            continue
        if value <= 0 if name in POSITIVE else value < 0:
            wanted = "above 0" if name in POSITIVE else "0 or more"
            raise invalid_config(f"{FIELD}.{name} {value} is out of range", hint=f"it has to be {wanted}")
        if name in SHARES and value > 1:
            raise invalid_config(f"{FIELD}.{name} {value} is out of range", hint="it has to be 0..1")
    return settings
