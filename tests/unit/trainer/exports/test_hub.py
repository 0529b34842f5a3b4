"""A result on its way to a hub: the real client, and a small hub of our own on the loopback address.

The client reads its settings when it is imported, so every case runs in a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.trainer import own_process
from tests.webserver import Asked, Reply, web
from trainyard.trainer.volume.commit import commit_folder

TOKEN = "hf_may_write"
WEIGHTS = bytes(range(256)) * 40
PROGRAM = """
import json, sys
from pathlib import Path
from dataclasses import asdict
from trainyard.trainer.exports import hub
from trainyard.trainer.context import read_context
from trainyard.trainer.errors import UserError
from trainyard.trainer.reporter import Reporter
hub.PAUSES = (0.01, 0.01)
context = read_context("export-hub")
export = context.run.spec.exports[0]
reporter = Reporter("export-hub", 1)
try:
    hub.check(context, export, export.hub)
    print(json.dumps(asdict(hub.send(context, export, export.hub, {}, reporter))))
except UserError as error:
    print(json.dumps({"code": int(error.exit_code), "message": error.message, "hint": error.hint}))
"""


class Hub:
    """Repositories of `org`, for whoever has the token. Files above 1 kB go to its large-file store."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.requests: list[str] = []
        self.failures: dict[str, int] = {}
        """How often a request, by a part of its path, still fails with 503."""
        self.url = ""

    def answer(self, asked: Asked) -> Reply:
        status, body = self._answer(asked.method, asked.target, asked.body, asked.authorization)
        return Reply(body, status, {"Content-Type": "application/json"})

    def _answer(self, method: str, path: str, body: bytes, authorization: str) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        for part in self.failures:
            if part in path and self.failures[part]:
                self.failures[part] -= 1
                return 503, {"error": "come back later"}
        if path.startswith("/store/"):  # signed addresses need no token
            self.large[path.removeprefix("/store/")] = body
            return 200, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if authorization != f"Bearer {TOKEN}":
            return 403, {"error": "this token may not write"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.private:
                return 409, {"error": "it is there already", "url": f"{self.url}/{name}"}
            self.private[name] = asked["visibility"] == "private"
            return 200, {"url": f"{self.url}/{name}", "id": "1", "name": name}
        if path.endswith("/auth-check/write"):
            return 200, {}
        if "/preupload/" in path:
            return 200, {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["size"] > 1000 else "regular",
                        "shouldIgnore": False,
                        "oid": self._oid(one["path"]),
                    }
                    for one in json.loads(body)["files"]
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    **one,
                    **(
                        {}
                        if one["oid"] in self.large
                        else {"actions": {"upload": {"href": f"{self.url}/store/{one['oid']}"}}}
                    ),
                }
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            return 200, self._commit([json.loads(line) for line in body.splitlines()])
        if path.startswith("/api/models/"):
            return 200, {"id": "org/model", "sha": self.commits[-1]}
        return 404, {"error": path}

    def _oid(self, path: str) -> str | None:
        content = self.files.get(path)
        if content is None:
            return None
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() if len(content) <= 1000 else None

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
        self.commits.append(hashlib.sha1(str(len(self.commits)).encode()).hexdigest())
        return {"success": True, "commitOid": self.commits[-1], "commitUrl": f"{self.url}/org/model/commit/x"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    started = Hub()
    with web(started.answer) as server:
        started.url = server.url
        yield started


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A run's folder with a merged model and its adapter."""
    work = tmp_path / "volume" / "tiny-0a1b2c3d"
    work.mkdir(parents=True)

    def model(folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "model.safetensors").write_bytes(WEIGHTS)

    def adapter(folder: Path) -> None:
        config = {"base_model_name_or_path": "/trainyard/cache/snapshots/abc", "r": 4}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(WEIGHTS[:4000])
        (folder / "README.md").write_text("a template")

    commit_folder(work / "model", model, step=30, data="sha256:d1")
    commit_folder(work / "adapter", adapter, step=30, data="sha256:d1")
    return work


def push(work: Path, endpoint: str, *, token: str = TOKEN, repo: str = "org/model") -> dict[str, Any]:
    place = work.parents[1]
    secret = place / "secrets" / "hub"
    secret.mkdir(parents=True, exist_ok=True)
    (secret / "token").write_text(f"{token}\n")
    run = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "tiny", "uid": "0a1b2c3d-0000-4000-8000-000000000000"},
        "spec": {
            "model": {"storageUri": "hf://org/base@v1", "adapter": {"lora": {}}},
            "datasets": [{"name": "d", "inline": {"text": "a"}}],
            "training": {"method": "SFT"},
            "exports": [{"name": "hub", "hub": {"repo": repo, "secretRef": {"name": "hub"}}}],
        },
    }
    (place / "run.json").write_text(json.dumps(run))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRAINYARD_"))},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "TRAINYARD_RUN_FILE": str(place / "run.json"),
        "TRAINYARD_WORK_DIR": str(work),
        "TRAINYARD_SECRETS_DIR": str(place / "secrets"),
    }
    done = own_process.run(PROGRAM, environment=environment)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert token not in done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_model_adapter_and_card_are_one_commit(hub: Hub, work: Path) -> None:
    exported = push(work, hub.url)
    assert exported["uri"] == f"hf://org/model@{hub.commits[0]}"
    assert exported["version"] == hub.commits[0]
    assert hub.private == {"org/model": True}
    assert set(hub.files) == {
        "config.json",
        "model.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "README.md",
    }
    assert hub.files["model.safetensors"] == WEIGHTS
    assert hashlib.sha256(WEIGHTS).hexdigest() in hub.large
    base = json.loads(hub.files["adapter/adapter_config.json"])
    assert base == {"base_model_name_or_path": "org/base", "r": 4, "revision": "v1"}, "no path of the pod"
    _, head, text = hub.files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": "org/base",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["trainyard", "sft"],
    }
    assert "| steps | 30 |" in text
    assert "| dataset digest | sha256:d1 |" in text


def test_the_same_again_sends_nothing(hub: Hub, work: Path) -> None:
    first = push(work, hub.url)
    hub.requests.clear()
    push(work, hub.url)
    assert not [request for request in hub.requests if request.startswith("PUT")], "the hub has the large files"
    assert hub.files["model.safetensors"] == WEIGHTS
    assert first["digest"] == push(work, hub.url)["digest"], "it is over the content alone"


def test_an_adapter_alone_stands_at_the_top(hub: Hub, work: Path) -> None:
    (work / "model").rename(work / "elsewhere")
    push(work, hub.url)
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} == set(hub.files)
    assert b"library_name: peft" in hub.files["README.md"]


def test_a_token_that_may_not_write(hub: Hub, work: Path) -> None:
    answer = push(work, hub.url, token="hf_reads_only")
    assert answer["code"] == 64
    assert answer["message"] == "spec.exports[hub].hub.repo org/model: the hub refuses (HTTP 403)"
    assert "spec.exports[hub].hub.secretRef" in answer["hint"]
    assert not hub.files


def test_a_name_that_the_hub_does_not_allow(hub: Hub, work: Path) -> None:
    answer = push(work, hub.url, repo="org/a--b")
    assert answer["code"] == 64
    assert answer["message"].startswith("spec.exports[hub].hub.repo org/a--b: ")
    assert not hub.requests


@pytest.mark.parametrize("part", ["/commit/", "/auth-check/"])
def test_a_fault_that_passes(part: str, hub: Hub, work: Path) -> None:
    hub.failures[part] = 2
    push(work, hub.url)
    assert hub.files["model.safetensors"] == WEIGHTS


def test_nobody_answers(hub: Hub, work: Path) -> None:
    answer = push(work, "http://127.0.0.1:9")
    assert answer["code"] == 69
    assert answer["message"].startswith("spec.exports[hub].hub.repo org/model: the hub did not answer in 3 tries")
    hub.failures["/commit/"] = 99
    answer = push(work, hub.url)
    assert answer["code"] == 69
    assert answer["message"].endswith("in 3 tries: HTTP 503")
    hub.failures.clear()
    assert push(work, hub.url)["version"]
