"""The arguments of method PPO that are its own, checked. See `PPOConfig` for what each of them means."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from trainyard.trainer.errors import invalid_config

FIELD = "spec.training.extraArgs"


@dataclass(frozen=True)
class PpoSettings:
    """PPOConfig without transformers' part."""

    response_length: int = 64
    temperature: float = 1.0
    num_mini_batches: int = 4
    num_ppo_epochs: int = 4
    kl_coef: float = 0.05
    kl_target: float | None = 6.0
    kl_horizon: int = 10000
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    missing_eos_penalty: float | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps between two generations."""
        return self.num_mini_batches * self.num_ppo_epochs


POSITIVE = (
    "response_length", "temperature", "num_mini_batches", "num_ppo_epochs", "kl_target", "kl_horizon", "cliprange", "cliprange_value",
)  # fmt: skip
SHARES = ("gamma", "lam")


def ppo_settings(extra: dict[str, Any]) -> PpoSettings:
    """From checked extra arguments.

    Raises:
        UserError: a value is out of range.
    """
    own = {field.name for field in fields(PpoSettings)}
    settings = PpoSettings(**{name: value for name, value in extra.items() if name in own})
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
