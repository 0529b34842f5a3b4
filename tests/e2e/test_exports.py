"""From a trained model to one that is served: gates, a bucket, a commit, promotion, a worse result, rollback.

good -> latest, MODEL_VERSION
worse -> Succeeded, GatesPassed=False: nothing moves
better -> latest, MODEL_VERSION; rolled back by an annotation -> both are good's again
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube, Object
from tests.e2e.web import ADDRESS
from tests.servers import git_server
from trainyard.api import names
from trainyard.controller.kube.resources import SECRETS, TRAININGRUNS

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
LOGIN = {"username": "bot", "password": "correct-horse"}
FILE = "agents/agent.yaml"


@pytest.fixture
def store() -> Iterator[Any]:
    """A client of an S3 API on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=ADDRESS, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{ADDRESS}:{port}", **keys)
    client.create_bucket(Bucket="models")
    yield client
    server.stop()


def latest(store: Any) -> str:
    """The folder that is in use."""
    body = store.get_object(Bucket="models", Key="agent/latest.json")["Body"].read()
    return str(json.loads(body)["uri"])


def chain(name: str, *, steps: int, store: str, git: str) -> Object:
    exports = [
        {
            "name": "store",
            "s3": {
                "uri": "s3://models/{agent}/{version}/",
                "latest": True,
                "endpoint": store,
                "secretRef": {"name": "object-store"},
            },
        },
        {"name": "files", "gguf": {"quantizations": ["f16"]}},
        {
            "name": "fleet",
            "dependsOn": ["store", "files"],
            "git": {
                "repository": f"{git}/homelab.git",
                "path": FILE,
                "yamlPath": "data.MODEL_VERSION",
                "value": "{version}",
                "secretRef": {"name": "git-login"},
            },
        },
    ]
    return runs.tiny(
        name,
        training={"maxSteps": steps, "learningRate": 3e-3, "loggingSteps": 10},
        owner={"agent": "agent"},
        evaluation={"gates": [{"metric": "loss", "maximum": 5.6, "confidence": 0}], "samples": 0},
        exports=exports,
    )


@pytest.mark.load  # minutes of GGUF and Ollama
@pytest.mark.timeout(1300)
def test_what_is_good_goes_out_what_is_worse_does_not_and_back_again(
    kube: Kube, space: str, tmp_path: Path, store: Any
) -> None:
    work, bare = tmp_path / "work", tmp_path / "served" / "homelab.git"
    git_server.commit(work, {FILE: "data:\n  MODEL_VERSION: none  # by the training\n"})
    git_server.git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    shutil.rmtree(work)
    kube.create(SECRETS, space, {"metadata": {"name": "object-store"}, "stringData": KEYS})
    kube.create(SECRETS, space, {"metadata": {"name": "git-login"}, "stringData": LOGIN})

    def in_git() -> str:
        return git_server.git(bare, "show", f"main:{FILE}").split("MODEL_VERSION: ")[1].split()[0].strip("\"'")

    with git_server.serving(bare.parent, login="bot:correct-horse", host=ADDRESS) as git:
        places = {"store": store.meta.endpoint_url, "git": git.url}
        runs.apply(kube, space, chain("good", steps=100, **places))
        good = runs.until_succeeded(kube, space, "good", seconds=400)
        version, folder = good["status"]["model"]["version"], good["status"]["outputs"]["store"]
        assert runs.has(good, "GatesPassed"), good["status"]["evaluation"]
        assert (latest(store), in_git()) == (folder, version)
        assert {e["state"] for e in good["status"]["exports"]} == {"Succeeded"}
        keys = {o["Key"] for o in store.list_objects_v2(Bucket="models", Prefix=f"agent/{version}/")["Contents"]}
        assert {f"agent/{version}/{name}" for name in ("manifest.json", "model.safetensors", "config.json")} <= keys

        runs.apply(kube, space, chain("worse", steps=1, **places))
        runs.apply(kube, space, chain("better", steps=120, **places))
        worse = runs.until_succeeded(kube, space, "worse", seconds=400)
        assert not runs.has(worse, "GatesPassed")
        assert {e["state"] for e in worse["status"]["exports"]} == {"Skipped"}
        better = runs.until_succeeded(kube, space, "better", seconds=400)
        assert (latest(store), in_git()) == (better["status"]["outputs"]["store"], better["status"]["model"]["version"])

        asked = {"metadata": {"annotations": {names.ROLLBACK_ANNOTATION: "it answers too slowly"}}}
        kube.merge(TRAININGRUNS, space, "better", asked)

        def back(run: Object | None) -> bool:
            return bool(run and (run["status"].get("rollback") or {}).get("state") == "Succeeded")

        kube.wait(TRAININGRUNS, space, "better", back, seconds=120, what="the rollback")
    assert (latest(store), in_git()) == (folder, version)
    assert int(git_server.git(bare, "rev-list", "--count", "main")) == 4, "the first, good, better, and back"
