"""An optimizer and a schedule go on with their state from a checkpoint and with their settings from the spec.

torch saves settings beside the state and loads both: without this, a learning rate, a weight decay or a schedule that was
changed between two attempts would be accepted and never act.
"""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR

SETTINGS = frozenset(
    {
        "initial_lr",
        "lr",
        "weight_decay",
        "betas",
        "eps",
        "momentum",
        "dampening",
        "nesterov",
        "amsgrad",
        "maximize",
        "alpha",
    }
    | {
        "centered",
        "lr_decay",
        "beta1",
        "clip_threshold",
        "decay_rate",
        "scale_parameter",
        "relative_step",
        "warmup_init",
    }
)
"""Keys of a parameter group that come from the arguments. Others (a counter, a running sum) are state."""


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """What the optimizer was made with, of each group of parameters."""
    return [{key: value for key, value in group.items() if key in SETTINGS} for group in optimizer.param_groups]


def put_settings_back(optimizer: Any, scheduler: Any, settings: list[dict[str, Any]]) -> None:
    """After the state was loaded: the settings as they were before, and the rate that the schedule has at this step. With
    equal settings nothing changes, to the bit."""
    for group, asked in zip(optimizer.param_groups, settings, strict=True):
        group.update(asked)
    if not isinstance(scheduler, LambdaLR):
        return
    scheduler.base_lrs = [asked.get("initial_lr", asked["lr"]) for asked in settings]
    rates = [
        base * share(scheduler.last_epoch) for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
