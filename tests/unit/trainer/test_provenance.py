"""From the object in the cluster to what a run's status says of its origin."""

from __future__ import annotations

from pathlib import Path

from trainyard.api.manifest import parse_run
from trainyard.api.names import GIT_COMMIT_LABEL
from trainyard.controller.manifests.config import run_file
from trainyard.controller.manifests.metadata import RunRef
from trainyard.trainer.context import read_context
from trainyard.trainer.provenance import provenance

SPEC = {
    "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
    "datasets": [{"name": "d", "inline": {"text": "x"}}],
    "training": {"method": "Pretrain", "seed": 7},
}


def run_ref(**labels: str) -> RunRef:
    manifest = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "r", "namespace": "team", "uid": "12345678-aaaa", "labels": labels},
        "spec": SPEC,
    }
    run = parse_run(manifest)
    return RunRef("r", "team", "12345678-aaaa", run.spec, SPEC, run.metadata.labels)


def known_in_the_pod(run: RunRef, folder: Path) -> dict[str, object]:
    (folder / "run.json").write_text(run_file(run))
    context = read_context("train", {"TRAINYARD_RUN_FILE": str(folder / "run.json")})
    return provenance(context, libraries=("pydantic",), dataset="d" * 64)


def test_the_commit_of_a_run_reaches_its_provenance(tmp_path: Path) -> None:
    known = known_in_the_pod(run_ref(**{GIT_COMMIT_LABEL: "abc123", "team": "red"}), tmp_path)
    assert known["gitCommit"] == "abc123"
    assert (known["seed"], known["datasetDigest"]) == (7, "d" * 64)
    assert "trainerVersion" in known


def test_a_run_without_one_has_none_and_the_file_of_before(tmp_path: Path) -> None:
    assert "gitCommit" not in known_in_the_pod(run_ref(team="red"), tmp_path)
    assert run_file(run_ref(team="red")) == run_file(run_ref()), "other labels are nobody's business in the pod"
