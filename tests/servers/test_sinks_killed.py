"""Exports killed at moments that nobody chose, against real servers: 30 in all.

Each moment has a result of its own. Its export, and then what makes it the one in use, run in a process that is killed with
SIGKILL somewhere on the way; another one does the same from the beginning. What is there then is what an undisturbed export
leaves, once, and whoever read meanwhile had an old model or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import git_server
from tests.servers import test_sinks as sinks
from tests.servers.reader import Reader
from tests.servers.restartable import REGISTRY_LOGIN, Server, mlflow, registry
from tests.servers.test_sinks import KEYS, client_of, document, store_of
from tests.unit.trainer.exports.results import Trained, trained

s3 = sinks.s3
pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]

SIZES = {
    "config.json": 900,
    "model-1.safetensors": 24 << 20,
    "model-2.safetensors": 24 << 20,
    "tokenizer.json": 700_000,
}
PROGRAM = """
import sys
from trainyard.trainer.context import read_context
from trainyard.trainer.exports import filled_target, module_of
from trainyard.trainer.exports.exported import digest_of, read_exported
from trainyard.trainer.frame.export import export, export_named, result_of
from trainyard.trainer.reporter import Reporter
import boto3, boto3.s3.transfer, urllib3, yaml
context = read_context("export")
boto3.client("s3", region_name="x", aws_access_key_id="a", aws_secret_access_key="b")
print("ready", flush=True)
sys.stdin.readline()
digest = digest_of(result_of(context))
for name in sys.argv[1:]:
    export(context, Reporter("export", 1), name=name)
for name in sys.argv[1:]:
    one = export_named(context, name)
    if one.promotes:
        target = filled_target(context, one, digest=digest, uri="")
        module_of(one).promote(context, one, target, read_exported(context, name))
"""


def started(run: Trained, *names: str) -> subprocess.Popen[str]:
    """A process that has imported everything and begins at once."""
    environment = {**os.environ, **run.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    return process


def whole(run: Trained, *names: str) -> float:
    """To its end; seconds."""
    process, begun = started(run, *names), time.monotonic()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return time.monotonic() - begun


def killed(run: Trained, *names: str, after: float) -> bool:
    """Whether it was in the middle of it."""
    process = started(run, *names)
    time.sleep(after)
    process.kill()
    process.communicate()
    return process.returncode == -9


def at_random_moments(make: Callable[[str], Trained], *names: str, count: int, seed: int) -> list[Trained]:
    """As many runs, each killed once at a time of its own and then done again."""
    chance, done, hit = random.Random(seed), [], 0
    seconds = min(whole(make(f"first-{number}"), *names) for number in range(2))
    for number in range(count):
        run = make(f"run-{number}")
        hit += killed(run, *names, after=seconds * (number + chance.random()) / count)
        whole(run, *names)
        done.append(run)
    print(f"{' and '.join(names)}: {seconds:.2f} s undisturbed; {hit} of {count} processes were killed in the middle")
    assert hit >= count // 2, "most moments lie in the middle"
    return done


def test_a_bucket_has_every_model_whole_and_once(tmp_path: Path, s3: Server) -> None:
    client = client_of(s3)
    reader = Reader(client)
    reader.start()

    def make(name: str) -> Trained:
        return trained(tmp_path, [store_of(s3)], name=name, version=name, secrets={"store": KEYS}, sizes=SIZES)

    runs = at_random_moments(make, "store", count=9, seed=1)
    reader.stopped.set()
    reader.join(60)
    assert reader.faults == []
    assert len(reader.models) > 2, "it has seen the model change"
    for run in runs:
        prefix = f"agent-sre/{run.context.run.metadata.name}/"
        manifest = document(client, f"{prefix}manifest.json")
        there = [o["Key"] for o in client.list_objects_v2(Bucket="models", Prefix=prefix)["Contents"]]
        assert there == sorted(prefix + name for name in [*SIZES, "manifest.json"])
        for name in SIZES:
            content = client.get_object(Bucket="models", Key=prefix + name)["Body"].read()
            assert content == (run.context.model_dir / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == manifest["files"][name]["sha256"]
    held = document(client, "agent-sre/latest.json")
    assert (held["version"], held["previous"]["version"]) == ("run-8", "run-7")
    assert client.list_multipart_uploads(Bucket="models").get("Uploads", []) == [], "no parts are left"


def test_a_registry_of_models_has_every_version_once(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    s3: Server,
) -> None:
    with mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        of = sinks.TestMlflow()

        def stored(name: str) -> Trained:
            run = of.run(tmp_path, s3, server, name=f"of-{name}")
            run.send("store")
            return run

        runs = at_random_moments(stored, "registry", count=7, seed=2)
        versions = of.ask(server, "model-versions/search", filter="name = 'agent-sre-tiny'")["model_versions"]
        sources = [version["source"] for version in versions]
        assert len(sources) == len(set(sources)) == len(runs) + 2
        numbers = {version["source"].rpartition("/")[2]: str(version["version"]) for version in versions}
        assert of.aliases(server) == {"champion": numbers["of-run-6"], "previous": numbers["of-run-5"]}


def test_a_repository_has_every_commit_once(tmp_path: Path) -> None:
    git_server.commit(tmp_path / "work", {"deploy.yaml": "tag: v0  # here\n"})
    git_server.git(
        tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "work"), str(tmp_path / "served" / "fleet.git")
    )
    with git_server.serving(tmp_path / "served") as server:

        def make(name: str) -> Trained:
            target = {
                "repository": f"{server.url}/fleet.git",
                "path": "deploy.yaml",
                "yamlPath": "tag",
                "value": "{version}",
            }
            return trained(tmp_path, [{"name": "bump", "git": target}], name=name, version=name)

        at_random_moments(make, "bump", count=7, seed=3)
    subjects = git_server.git(tmp_path / "served" / "fleet.git", "log", "--reverse", "--format=%s").splitlines()
    wanted = ["first-0", "first-1", *(f"run-{number}" for number in range(7))]
    assert subjects == ["x", *(f"agent-sre: model {name}" for name in wanted)]


@pytest.fixture
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with registry(tmp_path_factory.mktemp("registry"), closed=True) as running:
        yield running


def test_a_registry_of_images_has_every_image_whole(tmp_path: Path, images: Server) -> None:
    host, of = images.url.removeprefix("http://"), sinks.TestOci()

    def make(name: str) -> Trained:
        target = {
            "image": f"{host}/lab/{{agent}}:{{version}}",
            "alias": "champion",
            "insecure": True,
            "secretRef": {"name": "push"},
        }
        secrets = {"push": dict(zip(("username", "password"), REGISTRY_LOGIN, strict=True))}
        exports = [{"name": "image", "oci": target}]
        return trained(tmp_path, exports, name=name, version=name, secrets=secrets, sizes=SIZES)

    runs = at_random_moments(make, "image", count=7, seed=4)
    digests = {}
    for run in runs:
        name = run.context.run.metadata.name
        answer = of.get(images, f"manifests/{name}")
        digests[name] = answer.headers["Docker-Content-Digest"]
        assert digests[name] == run.send("image").version
        (chosen, _) = answer.json()["manifests"]
        for layer in of.get(images, f"manifests/{chosen['digest']}").json()["layers"]:
            content = of.get(images, f"blobs/{layer['digest']}").data
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
    tags = json.loads(of.get(images, "tags/list").data)["tags"]
    assert sorted(tags) == sorted([*digests, "first-0", "first-1", "champion", "champion-previous"])
    held = lambda tag: of.get(images, f"manifests/{tag}").headers["Docker-Content-Digest"]  # noqa: E731
    assert (held("champion"), held("champion-previous")) == (digests["run-6"], digests["run-5"])
