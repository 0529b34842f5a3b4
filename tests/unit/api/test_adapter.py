"""What of an adapter does not stand together, and which volume its beginning lies on."""

from typing import Any

import pytest

from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.references import sources
from trainyard.api.run.trainingrun import TrainingRun


def run(adapter: dict[str, Any], training: dict[str, Any] | None = None, **spec: Any) -> TrainingRun:
    return parse_run(
        {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": "a"},
            "spec": {
                "model": {"storageUri": "hf://a/b", "adapter": adapter},
                "datasets": [{"name": "d", "inline": {"text": "x"}}],
                "training": {"method": "CPT", **(training or {})},
                **spec,
            },
        }
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"adapter": {"lora": {"dora": True, "initialisation": "PiSSA"}}}, "remove one of them"),
        ({"adapter": {"lora": {"initialisation": "PiSSA"}, "quantization": "NF4"}}, "packed with quantization NF4"),
        ({"adapter": {"lora": {"loraPlusRatio": 4}}, "training": {"optim": "muon"}}, "optim muon sets its own"),
        ({"adapter": {"lora": {}, "from": "pvc://a/b"}, "phases": [{"name": "one"}]}, "each phase puts a new adapter"),
    ],
)
def test_what_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidManifest, match=told):
        run(**given)


def test_noise_would_blur_what_ppo_compares() -> None:
    prompts = [{"name": "d", "format": "Prompt", "inline": {"records": [{"prompt": "x"}]}}]
    ppo = {"method": "PPO", "rewards": [{"jsonValid": {}}], "neftuneNoiseAlpha": 5}
    with pytest.raises(InvalidManifest, match="would blur what PPO compares"):
        run({"lora": {}}, ppo, datasets=prompts)
    run({"lora": {}}, ppo | {"neftuneNoiseAlpha": None}, datasets=prompts)


def test_an_adapter_that_is_gone_on_with_lies_on_a_volume_of_its_own() -> None:
    made = run({"lora": {"dropout": 0.1}, "from": "pvc://adapters/first"}, {"neftuneNoiseAlpha": 5})
    assert made.spec.model is not None
    assert made.spec.model.adapter is not None
    assert made.spec.model.adapter.from_ == "pvc://adapters/first"
    found = {one.name: one for one in sources(made.spec)}["adapters"]
    assert found.field == "spec.model.adapter.from"
    assert {"prepare", "train"} <= found.steps
