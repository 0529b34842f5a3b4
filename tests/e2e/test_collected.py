"""Datasets from systems and not from files, in the cluster: a private git repository, and its runbooks."""

import json
from pathlib import Path

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube
from tests.e2e.web import ADDRESS, PASSWORD, USER
from tests.servers.git_server import commit, serving
from trainyard.controller.kube.resources import SECRETS

pytestmark = pytest.mark.timeout(300)

RUNBOOK = "## Queue is full\n\n**Symptom:** it grows.\n\n```sh\nkubectl get pods\n```\n"
PLANTED = "AKIA" + "Q3EGZJ7TNW5KVXPM"


def test_from_a_private_repository(kube: Kube, space: str, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"src/module{n}.py": f"def function{n}():\n    return {n}\n" for n in range(30)}
    files |= {"docs/RUNBOOK.md": RUNBOOK, "src/keys.py": f"KEY = '{PLANTED}'\n", "logo.png": b"\x89PNG\0"}
    commit(tmp_path / "app", files)
    kube.create(SECRETS, space, {"metadata": {"name": "login"}, "stringData": {"username": USER, "password": PASSWORD}})
    with serving(tmp_path, login=f"{USER}:{PASSWORD}", host=ADDRESS) as server:
        login = {"secretRef": {"name": "login"}}
        datasets = [
            {"name": "code", "code": {"url": f"{server.url}/app", "include": ["**/*.py"]}, **login},
            {"name": "runbooks", "runbook": {"url": f"{server.url}/app", "ref": "main"}, **login},
        ]
        runs.apply(kube, space, runs.tiny("collected", datasets=datasets, mode="DryRun"))
        run = runs.until_succeeded(kube, space, "collected", seconds=120)
    assert run["status"]["dataset"]["records"] == 32
    (pod,) = runs.pods(kube, space, "collected")
    log = kube.log(space, pod["metadata"]["name"])
    assert "dataset code: 31 files taken; left out: 2 not included" in log
    assert "1 secrets found and left out: 1 aws-access-key" in log
    for secret in (PASSWORD, PLANTED):
        assert secret not in log + json.dumps([run, pod])


def test_a_repository_that_is_not_there(kube: Kube, space: str, tmp_path: Path) -> None:
    with serving(tmp_path, host=ADDRESS) as server:
        runs.apply(kube, space, runs.tiny("absent", datasets=[{"name": "code", "code": {"url": f"{server.url}/app"}}]))
        run = runs.until_finished(kube, space, "absent", seconds=90)
    assert run["status"]["failure"]["reason"] == "InvalidData"
    assert f"dataset code: code.url {server.url}/app: there is no such repository" in runs.message(run)
