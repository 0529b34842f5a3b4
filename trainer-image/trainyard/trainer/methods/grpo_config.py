"""The arguments of methods GRPO and RLOO that are their own, with TRL's names, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from trainyard.trainer.errors import invalid_config

FIELD = "spec.training.extraArgs"


@dataclass(frozen=True)
class GRPOConfig:
    """What `extraArgs` may name under method GRPO, beside the arguments of transformers' Trainer."""

    num_generations: int = 8
    """Completions of each prompt, which are compared with each other."""
    max_completion_length: int = 512
    """Tokens that are generated at most."""
    temperature: float = 1.0
    """Logits are divided by it, in generating and in learning."""
    beta: float = 0.0
    """Price of a nat of divergence from the model as it was; 0 needs no reference."""
    num_iterations: int = 1
    """Optimizer steps on the same completions."""
    epsilon: float = 0.2
    """How far the probability of a token may move from what it was when the completion was generated."""
    epsilon_high: float | None = None
    """The same upwards; without it as epsilon. DAPO's is 0.28."""
    loss_type: str = "dapo"
    """How the tokens' losses become one: dapo, grpo or dr_grpo."""
    scale_rewards: str = "group"
    """What advantages are divided by: the deviation of the rewards of the group, or of the batch, or nothing (none)."""
    importance_sampling_level: str = "token"
    """Whether probabilities are compared by token, or by sequence as in GSPO."""
    mask_truncated_completions: bool = False
    """Whether nothing is learned from completions that did not come to an end."""
    max_resamples: int = 0
    """How often, at most, another prompt takes the place of one whose completions were all scored alike, as in DAPO."""


@dataclass(frozen=True)
class RLOOConfig:
    """What `extraArgs` may name under method RLOO, beside the arguments of transformers' Trainer."""

    num_generations: int = 2
    """Completions of each prompt, which are compared with each other."""
    max_completion_length: int = 512
    """Tokens that are generated at most."""
    temperature: float = 1.0
    """Logits are divided by it, in generating and in learning."""
    beta: float = 0.05
    """Price of a nat of divergence from the model as it was, taken from the reward; 0 needs no reference."""
    num_iterations: int = 1
    """Optimizer steps on the same completions."""
    epsilon: float = 0.2
    """How far the probability of a completion may move from what it was when it was generated."""
    epsilon_high: float | None = None
    """The same upwards; without it as epsilon."""
    normalize_advantages: bool = False
    """Whether the advantages of a batch get mean 0 and deviation 1."""
    mask_truncated_completions: bool = False
    """Whether nothing is learned from completions that did not come to an end."""


Grouped = GRPOConfig | RLOOConfig
T = TypeVar("T", GRPOConfig, RLOOConfig)
CHOICES = {
    "loss_type": ("dapo", "grpo", "dr_grpo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
}
NOT_NEGATIVE = ("beta", "max_resamples")
POSITIVE = ("max_completion_length", "temperature", "num_iterations", "epsilon", "epsilon_high")


def grpo_settings(extra: dict[str, Any]) -> GRPOConfig:
    """From checked extra arguments.

    Raises:
        UserError: a value is out of range.
    """
    return _settings(GRPOConfig, extra)


def rloo_settings(extra: dict[str, Any]) -> RLOOConfig:
    """From checked extra arguments.

    Raises:
        UserError: a value is out of range.
    """
    return _settings(RLOOConfig, extra)


def _settings(kind: type[T], extra: dict[str, Any]) -> T:
    own = {field.name for field in fields(kind)}
    settings = kind(**{name: value for name, value in extra.items() if name in own})
    if settings.num_generations < 2:
        raise invalid_config(
            f"{FIELD}.num_generations {settings.num_generations}: completions of a prompt are compared with each other",
            hint="use 2 or more",
        )
    for name, choices in CHOICES.items():
        if name in own and getattr(settings, name) not in choices:
            raise invalid_config(
                f"{FIELD}.{name}: {getattr(settings, name)!r} is not offered", hint=f"use {', '.join(choices)}"
            )
    for name in (*POSITIVE, "beta", "max_resamples"):
        value = getattr(settings, name, None)
        if value is not None and (value < 0 if name in NOT_NEGATIVE else value <= 0):
            wanted = "0 or more" if name in NOT_NEGATIVE else "above 0"
            raise invalid_config(f"{FIELD}.{name} {value} is out of range", hint=f"it has to be {wanted}")
    return settings
