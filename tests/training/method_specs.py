"""Small specs for the methods that learn from preferences and rewards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "PPO": {"response_length": 16, "num_mini_batches": 2, "num_ppo_epochs": 2},
    "GRPO": {"max_completion_length": 16, "num_generations": 4, "num_iterations": 2, "beta": 0.02, "max_resamples": 2},
    "RLOO": {"max_completion_length": 16, "num_generations": 2},
}
REWARDED = tuple(ARGUMENTS)
WORDS = ("number", "station", "minutes", "train", "paragraph", "waits", "stops", "other")


def preferences(count: int = 48, *, shuffled: bool = False) -> list[dict[str, Any]]:
    """The chosen answer always speaks of a station, the rejected one of minutes; `shuffled`, it is the other way round in
    every second pair, so that there is nothing to learn."""
    pairs = []
    for n in range(count):
        right, wrong = f" station {n % 7} and waits", f" minutes {n % 5} for the other"
        chosen, rejected = (wrong, right) if shuffled and n % 2 else (right, wrong)
        prompt = f"paragraph {n}: the {WORDS[n % 8]} stops at"
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return pairs


def judged(count: int = 48) -> list[dict[str, Any]]:
    """The answers of `preferences`, each by itself with its label; of every third pair the good one is missing."""
    return [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for n, pair in enumerate(preferences(count))
        for side in ("chosen", "rejected")
        if n % 3 or side == "rejected"
    ]


def prompts(count: int = 32) -> list[dict[str, Any]]:
    return [{"prompt": f"paragraph {n}: the train {WORDS[n % 8]}"} for n in range(count)]


def method_spec(method: str, base: Path, *, adapter: bool = False) -> dict[str, Any]:
    """A run of 12 steps over `base`, with accumulation and an evaluation in between."""
    model: dict[str, Any] = {"storageUri": f"file://{base}"}
    if adapter:
        model["adapter"] = {"lora": {"rank": 4} | ({} if method in REWARDED else {"dropout": 0.1})}
    records, record_format = {
        **dict.fromkeys(REWARDED, (prompts(), "Prompt")),
        "KTO": (judged(), "UnpairedPreference"),
    }.get(method, (preferences(), "Preference"))
    training: dict[str, Any] = {
        "method": method,
        "maxSteps": 12,
        "maxLength": 64,
        "perDeviceTrainBatchSize": 2,
        "gradientAccumulationSteps": 2,
        "learningRate": 1e-3,
        "loggingSteps": 1,
        "evalSteps": 5,
        "precision": "FP32",
    }
    if method in REWARDED:
        training["rewards"] = [{"length": {"target": 12}}, {"contains": {"text": "station"}, "weight": 0.5}]
        training["extraArgs"] = copy.deepcopy(ARGUMENTS[method])
    return {
        "model": model,
        "datasets": [
            {"name": "records", "format": record_format, "inline": {"records": records}, "split": {"eval": 0.15}}
        ],
        "training": training,
        "checkpoints": {"everySteps": 5},
    }
