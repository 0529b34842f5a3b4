"""What a run names: which objects, under which field, and which steps open them."""

from typing import Any

import pytest

from trainyard.api.manifest import read_run
from trainyard.api.references import Kind, named, references, sources
from trainyard.api.run.trainingrun import TrainingRunSpec

MANIFEST = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: a, namespace: team}
spec:
  model: {storageUri: "pvc://models/base", secretRef: {name: hub}}
  datasets:
  - {name: d, storageUri: s3://bucket/key, secretRef: {name: store}}
  - {name: e, storageUri: "pvc://data/x.jsonl"}
  - {name: f, code: {storageUri: "pvc://repos/app"}}
  training: {method: SFT}
  pushToHub: {repo: org/name, secretRef: {name: writer}}
  storage:
    checkpoints: {claimName: kept}
    cache: {claimName: cache, size: 1Gi}
"""
WEIGHTS = {"storageUri": "pvc://models/base", "secretRef": {"name": "weights"}}
SCRATCH = {
    "scratch": {"architecture": "llama", "tokenizer": {"storageUri": "pvc://models/words"}},
    "secretRef": {"name": "weights"},
}
PROMPTS = {"name": "prompts", "format": "Prompt", "storageUri": "pvc://data/x", "secretRef": {"name": "data"}}


def reward(name: str, scheme: str = "pvc") -> dict[str, Any]:
    return {"model": {"storageUri": f"{scheme}://{name}/model", "secretRef": {"name": name}}}


FULL: dict[str, Any] = {
    "model": WEIGHTS,
    "datasets": [PROMPTS],
    "training": {"method": "PPO", "rewards": [reward("judge")]},
    "datasetUpload": {"storageUri": "s3://bucket/built", "secretRef": {"name": "store"}},
    "tracking": {"mlflow": {"trackingUri": "https://mlflow.example.org", "secretRef": {"name": "tracker"}}},
    "pushToHub": {"repo": "org/name", "secretRef": {"name": "writer"}},
}
PHASED = {
    **FULL,
    "phases": [
        {"name": "one"},
        {"name": "two", "training": {"rewards": [reward("other")]}},
        {"name": "three", "training": {"maxSteps": 5}},
    ],
}


def opened(spec: dict[str, Any], kind: Kind = "Secret") -> dict[str, set[str]]:
    """Step by step."""
    made = TrainingRunSpec.model_validate(spec)
    return {
        step: set(named(made, kind, step=step))
        for step in (*made.steps(), *(export.step for export in made.all_exports()))
    }


def test_what_must_exist_before_the_run_starts() -> None:
    assert [(one.kind, one.field, one.name) for one in references(read_run(MANIFEST).spec)] == [
        ("Secret", "spec.model.secretRef.name", "hub"),
        ("PersistentVolumeClaim", "spec.model.storageUri", "models"),
        ("Secret", "spec.datasets[d].secretRef.name", "store"),
        ("PersistentVolumeClaim", "spec.datasets[e].storageUri", "data"),
        ("PersistentVolumeClaim", "spec.datasets[f].code.storageUri", "repos"),
        ("Secret", "spec.pushToHub.secretRef.name", "writer"),
        ("PersistentVolumeClaim", "spec.storage.checkpoints.claimName", "kept"),
    ]


def test_every_place_that_names_something_is_found() -> None:
    made = TrainingRunSpec.model_validate(PHASED)
    assert [one.field for one in sources(made) if one.kind == "Secret"] == [
        "spec.model.secretRef.name",
        "spec.datasets[prompts].secretRef.name",
        "spec.datasetUpload.secretRef.name",
        "spec.tracking.mlflow.secretRef.name",
        "spec.pushToHub.secretRef.name",
        "spec.training.rewards[0].model.secretRef.name",
        "spec.phases[two].training.rewards[0].model.secretRef.name",
    ]
    scratch = TrainingRunSpec.model_validate(
        {"model": SCRATCH, "datasets": [{"name": "d", "inline": {"text": "a"}}], "training": {"method": "Pretrain"}}
    )
    assert named(scratch, "PersistentVolumeClaim") == {"models": "spec.model.scratch.tokenizer.storageUri"}


def test_a_step_opens_its_own_secrets() -> None:
    held_out = {**FULL, "datasets": [{**PROMPTS, "split": {"eval": 0.1}}]}
    assert opened(held_out) == {
        "prepare": {"weights", "data", "store", "tracker", "writer"},
        "train": {"weights", "judge", "tracker"},
        "evaluate": {"weights", "judge", "tracker"},
        "export-push-to-hub": {"writer"},
    }
    assert opened(held_out, "PersistentVolumeClaim") == {
        "prepare": {"models", "data"},
        "train": {"models", "judge"},
        "evaluate": {"models", "judge"},
        "export-push-to-hub": set(),
    }


def test_a_reward_model_on_a_hub_is_fetched_before_the_training_where_it_can_be_kept() -> None:
    from_hub = {**FULL, "training": {"method": "PPO", "rewards": [reward("judge", "hf")]}}
    assert "judge" not in opened(from_hub)["prepare"]
    assert "judge" in opened({**from_hub, "storage": {"cache": {"size": "1Gi"}}})["prepare"]


def test_random_weights_have_a_tokenizer_to_fetch_and_nothing_else() -> None:
    texts = {"name": "texts", "inline": {"text": "a"}, "split": {"eval": 0.1}}
    spec = {"model": SCRATCH, "datasets": [texts], "training": {"method": "Pretrain"}}
    assert opened(spec) == {"prepare": {"weights"}, "train": set(), "evaluate": set()}


def test_phases_start_from_each_other_and_have_their_own_judges() -> None:
    held_out = {**PHASED, "datasets": [{**PROMPTS, "split": {"eval": 0.1}}]}
    assert opened(held_out) == {
        "prepare": {"weights", "data", "store", "tracker", "writer"},
        "train-one": {"weights", "judge", "tracker"},
        "train-two": {"other", "tracker"},
        "train-three": {"judge", "tracker"},
        "evaluate": {"judge", "tracker"},
        "export-push-to-hub": {"writer"},
    }
    alone = {**held_out, "runPhases": ["two"]}
    assert opened(alone)["train-two"] == {"weights", "other", "tracker"}
    assert opened(alone)["evaluate"] == {"weights", "other", "tracker"}


@pytest.mark.parametrize(
    ("mode", "step", "secrets"),
    [
        ("DryRun", "validate", {"weights", "data"}),
        ("Debug", "train", {"weights", "judge", "tracker"}),
        ("Dataset", "prepare", {"data", "store", "tracker"}),
    ],
)
def test_what_is_sent_nowhere_needs_no_secret(mode: str, step: str, secrets: set[str]) -> None:
    assert opened({**FULL, "mode": mode})[step] == secrets


def test_a_script_may_open_whatever_its_run_names() -> None:
    script = {"image": "my/image", "command": ["train"], "model": WEIGHTS, "datasets": [PROMPTS]}
    assert opened(script) == {"prepare": {"weights", "data"}, "train": {"weights", "data"}}
    assert opened(script, "PersistentVolumeClaim")["train"] == {"models", "data"}
