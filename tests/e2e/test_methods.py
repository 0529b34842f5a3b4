"""The methods behind plain language modelling in the cluster: one run pretrains a model and hands it from DPO to ORPO to PPO.

What has to move moves, read from what each phase's pod printed: the margin between chosen and rejected answers grows from
nothing, and the reward rises while the distance from the start stays bounded. That neither moves where there is nothing to
learn is shown without a cluster, in tests/training/test_methods.py.
"""

import re
from statistics import fmean

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import Kube
from tests.e2e.kube import Object as Json
from tests.training.method_specs import preferences, prompts
from trainyard.api.steps import train_step

LANGUAGE = [{"text": f"{r['prompt']}{r['chosen']}. {r['prompt']}{r['rejected']}."} for r in preferences(96)]
PREFERENCES = {"name": "preferences", "format": "Preference", "inline": {"records": preferences(96)}}
PROMPTS = {"name": "prompts", "format": "Prompt", "inline": {"records": prompts()}, "split": {"eval": 0.2}}
PHASES: list[Json] = [
    {"name": "pretrain", "datasets": ["language"], "training": {"method": "Pretrain", "maxSteps": 60}},
    {"name": "dpo", "datasets": ["preferences"], "training": {"method": "DPO", "maxSteps": 30}},
    {"name": "orpo", "datasets": ["preferences"], "training": {"method": "ORPO", "maxSteps": 30}},
    {
        "name": "ppo",
        "datasets": ["prompts"],
        "training": {
            "method": "PPO",
            "maxSteps": 60,
            "perDeviceTrainBatchSize": 16,
            "learningRate": 3e-3,
            "rewards": [{"contains": {"text": "station"}}],
            "extraArgs": {"response_length": 16, "num_mini_batches": 2, "num_ppo_epochs": 2},
        },
    },
]


@pytest.mark.timeout(500)
def test_a_model_goes_from_method_to_method(kube: Kube, space: str) -> None:
    manifest = runs.tiny(
        "methods",
        training={"method": None, "maxSteps": None},
        datasets=[{"name": "language", "inline": {"records": LANGUAGE}}, PREFERENCES, PROMPTS],
        phases=PHASES,
    )
    manifest["spec"]["training"] = {k: v for k, v in manifest["spec"]["training"].items() if v is not None}
    runs.apply(kube, space, manifest)
    run = runs.until_succeeded(kube, space, "methods", seconds=450)

    margins = printed(kube, space, "dpo", "margin")
    assert abs(margins[0]) < 0.05, "before the first step the model is its own reference"
    assert fmean(margins[-5:]) > fmean(margins[:5]) + 0.1
    odds = printed(kube, space, "orpo", "loss")
    assert fmean(odds[-5:]) < fmean(odds[:5])
    rewards, distances = printed(kube, space, "ppo", "reward"), printed(kube, space, "ppo", "KL")
    assert fmean(rewards[-5:]) > fmean(rewards[:5])
    assert max(map(abs, distances)) < 20
    evaluation = runs.evaluated(run)
    assert {"objective/scores", "objective/kl"} <= set(evaluation)
    measure.record(
        "methods",
        dpo_margin=[round(margins[0], 3), round(fmean(margins[-5:]), 3)],
        orpo_loss=[round(fmean(odds[:5]), 3), round(fmean(odds[-5:]), 3)],
        ppo_reward=[round(fmean(rewards[:5]), 3), round(fmean(rewards[-5:]), 3)],
        ppo_kl=round(fmean(distances[-5:]), 3),
    )


def printed(kube: Kube, space: str, phase: str, name: str) -> list[float]:
    """The values of a metric in the log of a phase, step by step."""
    pod = runs.pods(kube, space, "methods", step=train_step(phase))[-1]["metadata"]["name"]
    lines = [line for line in kube.log(space, pod).splitlines() if line.startswith("step ") and " lr " in line]
    return [float(found[1]) for line in lines if (found := re.search(rf"\b{name} (-?[\d.]+)", line))]
