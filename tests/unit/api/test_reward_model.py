"""What does not stand together with a model that scores and writes no text."""

from typing import Any

import pytest

from trainyard.api.manifest import InvalidManifest, parse_run

PAIRS = {"name": "pairs", "format": "Preference", "inline": {"records": [{"prompt": "a"}]}}
PROMPTS = {"name": "prompts", "format": "Prompt", "inline": {"records": [{"prompt": "a"}]}}


def run(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "judge"},
        "spec": {
            "model": {"storageUri": "hf://a/b"},
            "datasets": [PAIRS],
            "training": {"method": "RewardModel"},
            **spec,
        },
    }


def export(target: str, value: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "out", target: value}]


ADAPTER = {"lora": {}, "merge": False}
JUDGED = {"datasets": [PROMPTS], "training": {"method": "PPO", "rewards": [{"model": {"storageUri": "run://judge"}}]}}
LAST = [{"name": "talk", "datasets": ["pairs"], "training": {"method": "DPO"}}, {"name": "judge"}]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"exports": export("gguf", {})}, "take a model that writes text"),
        ({"model": {"storageUri": "hf://a/b", "adapter": ADAPTER}}, "spec.model.adapter.merge must be true"),
        ({"phases": LAST[::-1]}, "let it be the last phase"),
        (JUDGED, "name the other run's in spec.storage.checkpoints.claimName"),
        (
            {"model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 500}}}},
            "goes on from existing",
        ),
        ({"evaluation": {"metrics": ["exactMatch"]}}, "judge answers"),
    ],
)
def test_what_is_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidManifest, match=told):
        parse_run(run(**spec))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": {"storageUri": "hf://a/b", "adapter": {"lora": {}}}},
        {"phases": LAST},
        {**JUDGED, "storage": {"checkpoints": {"claimName": "judged"}}},
    ],
)
def test_what_is_taken(spec: dict[str, Any]) -> None:
    parse_run(run(**spec))
