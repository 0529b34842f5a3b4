"""What a run whose data comes from systems gets in its pods: volumes, Secrets, and the time at which it looks back."""

from __future__ import annotations

import json
from typing import Any

from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.controller.manifests.config import run_file
from trainyard.controller.manifests.job import build_job
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.manifests.storage import source_claims

SPEC: dict[str, Any] = {
    "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
    "training": {"method": "Pretrain", "maxSteps": 1},
    "datasets": [
        {"name": "code", "code": {"storageUri": "pvc://repos/app"}},
        {"name": "notes", "runbook": {"storageUri": "pvc://docs/"}},
        {"name": "built", "manifest": {"storageUri": "pvc://sets/v1/manifest.json"}},
        {"name": "git", "code": {"url": "https://git.example.org/a.git"}, "secretRef": {"name": "git-login"}},
        {
            "name": "logs",
            "loki": {"url": "http://loki:3100", "queries": ['{a="b"}']},
            "secretRef": {"name": "loki-login"},
        },
    ],
}
RUN = RunRef(
    name="r",
    namespace="n",
    uid="0123456789",
    spec=TrainingRunSpec.model_validate(SPEC),
    raw_spec=SPEC,
    labels={},
    created="2026-11-01T02:00:00Z",
)


def test_folders_of_collectors_are_volumes() -> None:
    assert source_claims(RUN) == {
        "repos": "spec.datasets[code].code.storageUri",
        "docs": "spec.datasets[notes].runbook.storageUri",
        "sets": "spec.datasets[built].manifest.storageUri",
    }


def mounts(step: str) -> dict[str, bool]:
    """Path, and whether it is mounted for reading only."""
    job = build_job(RUN, step=step, attempt=1, defaults=Defaults(trainer_image="t"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}


def test_they_are_mounted_for_reading_and_so_are_the_secrets() -> None:
    for path in ("volumes/repos", "volumes/docs", "volumes/sets", "secrets/git-login", "secrets/loki-login"):
        assert mounts("prepare")[f"/trainyard/{path}"] is True


def test_only_the_step_that_fetches_has_them() -> None:
    assert mounts("train").keys() == mounts("evaluate").keys()
    assert mounts("train").keys() == {p for p in mounts("prepare") if "/volumes/" not in p and "/secrets/" not in p}
    assert mounts("train")["/etc/trainyard"] is True


def test_the_trainer_is_told_when_the_run_was_made() -> None:
    assert json.loads(run_file(RUN))["metadata"]["creationTimestamp"] == "2026-11-01T02:00:00Z"
