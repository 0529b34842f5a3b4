"""The arguments of method Distillation that are its own, with TRL's names, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from trainyard.trainer.errors import invalid_config

FIELD = "spec.training.extraArgs"


@dataclass(frozen=True)
class DistillationConfig:
    """What `extraArgs` may name under method Distillation, beside the arguments of transformers' Trainer."""

    beta: float = 0.5
    """Which divergence: 0 is forward KL (cover what the teacher says), 1 reverse KL (say only what the teacher says), and in
    between the Jensen-Shannon divergence with this share of the teacher."""
    temperature: float = 1.0
    """Logits of both are divided by it."""


def distillation_settings(extra: dict[str, Any]) -> DistillationConfig:
    """From checked extra arguments.

    Raises:
        UserError: a value is out of range.
    """
    own = {field.name for field in fields(DistillationConfig)}
    settings = DistillationConfig(**{name: value for name, value in extra.items() if name in own})
    if not 0 <= settings.beta <= 1:
        raise invalid_config(
            f"{FIELD}.beta {settings.beta} is out of range",
            hint="0 is forward KL, 1 reverse KL, 0.5 the one in the middle",
        )
    if settings.temperature <= 0:
        raise invalid_config(f"{FIELD}.temperature {settings.temperature} is not above 0", hint="the usual value is 1")
    return settings
