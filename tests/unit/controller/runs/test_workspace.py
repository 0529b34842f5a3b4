"""What a run with a workspace gets in its pods, and what its status tells of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.controller.runs.world import World
from trainyard.api.references import named
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.controller.manifests.job import build_job
from trainyard.controller.manifests.metadata import Defaults, RunRef

CHECKOUT = {"url": "https://git.example.org/team/app.git", "ref": "v1", "secretRef": {"name": "git-login"}}
SCRIPT: dict[str, Any] = {
    "image": "my/image",
    "command": ["python", "train.py"],
    "storage": {"workspace": {"git": CHECKOUT}},
}
FOLDER = "/trainyard/checkpoints/r-01234567/workspace"


def container(step: str, spec: dict[str, Any] = SCRIPT) -> dict[str, Any]:
    run = RunRef(
        name="r",
        namespace="n",
        uid="0123456789",
        spec=TrainingRunSpec.model_validate(spec),
        raw_spec=spec,
        labels={},
        created="2026-11-01T02:00:00Z",
    )
    job = build_job(run, step=step, attempt=1, defaults=Defaults(trainer_image="t"))
    made: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return made


def test_it_is_made_before_the_script_even_without_data() -> None:
    assert TrainingRunSpec.model_validate(SCRIPT).steps() == ("prepare", "train")
    assert TrainingRunSpec.model_validate({**SCRIPT, "storage": {}}).steps() == ("train",)


def test_the_trainers_own_image_makes_it_and_the_script_works_in_it() -> None:
    prepare, train = container("prepare"), container("train")
    assert prepare["image"] == "t"
    assert "workingDir" not in prepare
    assert (train["image"], train["workingDir"]) == ("my/image", FOLDER)
    for one in (prepare, train):
        assert {"name": "TRAINYARD_WORKSPACE_DIR", "value": FOLDER} in one["env"]


def test_without_one_nothing_changes() -> None:
    train = container("train", {**SCRIPT, "storage": {}})
    assert "workingDir" not in train
    assert "TRAINYARD_WORKSPACE_DIR" not in {e["name"] for e in train["env"]}


def test_the_login_is_for_the_step_that_fetches() -> None:
    spec = TrainingRunSpec.model_validate(SCRIPT)
    assert named(spec, "Secret") == {"git-login": "spec.storage.workspace.git.secretRef.name"}
    assert named(spec, "Secret", step="train") == {}
    assert any(m["mountPath"].endswith("/git-login") for m in container("prepare")["volumeMounts"])
    assert not any(m["mountPath"].endswith("/git-login") for m in container("train")["volumeMounts"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {
                "model": {"storageUri": "hf://a/b"},
                "datasets": [{"name": "d", "inline": {"text": "a"}}],
                "training": {"method": "Pretrain"},
                "storage": {"workspace": {"git": CHECKOUT}},
            },
            "spec.storage.workspace is where the script of spec.command works",
        ),
        ({**SCRIPT, "storage": {"workspace": {"git": {**CHECKOUT, "sparsePaths": ["a/../b"]}}}}, "a path with .."),
        ({**SCRIPT, "storage": {"workspace": {"git": {**CHECKOUT, "sparsePaths": ["-x"]}}}}, "sparse_?[pP]aths"),
        ({**SCRIPT, "storage": {"workspace": {"git": {**CHECKOUT, "sparsePaths": ["/x"]}}}}, "sparse_?[pP]aths"),
        ({**SCRIPT, "storage": {"workspace": {"git": {**CHECKOUT, "url": "git@github.com:a/b"}}}}, "git.url"),
        ({**SCRIPT, "storage": {"workspace": {"git": {**CHECKOUT, "ref": "--upload-pack=x"}}}}, "git.ref"),
    ],
)
def test_what_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainingRunSpec.model_validate(spec)


def test_the_status_tells_the_commit() -> None:
    world = World()
    world.run["spec"] = SCRIPT
    world.secrets["git-login"] = {"metadata": {"name": "git-login"}}
    world.settle()
    assert world.created == ["tiny-prepare-1"]
    told = {"workspace": "https://git.example.org/team/app.git@" + "ab" * 20}
    world.end(record={"provenance": told})
    world.settle()
    assert world.status().provenance == told
