"""Results sent to real servers: versitygw, MLflow and a registry, read back by their own clients."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.servers import restartable
from tests.servers.restartable import HTTP, Server
from tests.servers.source_servers import versitygw
from tests.unit.trainer.exports.results import Trained, trained
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

KEYS = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "correct-horse"}
SIZES = {"config.json": 900, "model.safetensors": 40 << 20, "tokenizer.json": 700_000}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("s3")
    (place / "data" / "models").mkdir(parents=True)
    with versitygw(place / "data", access=KEYS["AWS_ACCESS_KEY_ID"], secret=KEYS["AWS_SECRET_ACCESS_KEY"]) as running:
        yield running


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with restartable.mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with restartable.registry(tmp_path_factory.mktemp("registry"), closed=True) as running:
        yield running


def client_of(s3: Server) -> Any:
    keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    return boto3.client("s3", endpoint_url=s3.url, region_name="us-east-1", **keys)


def store_of(s3: Server, **fields: Any) -> dict[str, Any]:
    target = {
        "uri": "s3://models/{agent}/{version}/",
        "endpoint": s3.url,
        "secretRef": {"name": "store"},
        "latest": True,
    }
    return {"name": "store", "s3": target | fields}


def document(client: Any, key: str) -> Any:
    return json.loads(client.get_object(Bucket="models", Key=key)["Body"].read())


class TestS3:
    def run(self, tmp_path: Path, s3: Server, *, name: str = "one", **fields: Any) -> Trained:
        secrets = {
            "store": KEYS,
            "wrong": {**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong-horse"},
            "nobody": {**KEYS, "AWS_ACCESS_KEY_ID": "nobody"},
        }
        return trained(tmp_path, [store_of(s3, **fields)], name=name, version=name, secrets=secrets, sizes=SIZES)

    def test_a_model_in_parts_and_what_points_at_it(self, tmp_path: Path, s3: Server) -> None:
        client = client_of(s3)
        for name in ("one", "two"):
            run = self.run(tmp_path, s3, name=name)
            run.check("store")
            run.send("store")
            run.point("store")
            held = document(client, "agent-sre/latest.json")
            assert held["uri"] == f"s3://models/agent-sre/{name}/"
            for file, entry in document(client, f"agent-sre/{name}/manifest.json")["files"].items():
                content = client.get_object(Bucket="models", Key=f"agent-sre/{name}/{file}")["Body"].read()
                assert content == (run.context.model_dir / file).read_bytes()
                assert len(content) == entry["size"]
        run.point("store", back=True)
        assert document(client, "agent-sre/latest.json")["version"] == "one"
        assert client.list_multipart_uploads(Bucket="models").get("Uploads", []) == []

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"secretRef": {"name": "wrong"}}, "the store refuses to write (HTTP 403): SignatureDoesNotMatch"),
            ({"secretRef": {"name": "nobody"}}, "the store refuses to write (HTTP 403): InvalidAccessKeyId"),
            ({"uri": "s3://nothing/{version}"}, "the store refuses to write (HTTP 404): NoSuchBucket"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, s3: Server, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            self.run(tmp_path, s3, **fields).check("store")
        assert message in caught.value.message
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert "horse" not in str(caught.value)


class TestMlflow:
    def run(self, tmp_path: Path, s3: Server, mlflow: Server, *, name: str, **fields: Any) -> Trained:
        target = {"trackingUri": mlflow.url, "model": "{agent}-tiny", "alias": "champion", **fields}
        exports = [store_of(s3), {"name": "registry", "dependsOn": ["store"], "mlflow": target}]
        return trained(tmp_path, exports, name=name, version=name, secrets={"store": KEYS})

    def ask(self, mlflow: Server, what: str, **fields: str) -> Any:
        answer = HTTP.request("GET", f"{mlflow.url}/api/2.0/mlflow/{what}", fields=fields, timeout=60)
        assert answer.status == 200, answer.data
        return answer.json()

    def aliases(self, mlflow: Server, name: str = "agent-sre-tiny") -> dict[str, str]:
        found = self.ask(mlflow, "registered-models/get", name=name)["registered_model"]
        return {entry["alias"]: str(entry["version"]) for entry in found.get("aliases", [])}

    def test_versions_tags_and_aliases(self, tmp_path: Path, s3: Server, mlflow: Server) -> None:
        runs = [self.run(tmp_path, s3, mlflow, name=f"m{number}") for number in range(1, 12)]
        for number, run in enumerate(runs, 1):
            run.check("registry")
            run.send("store")
            left = run.send("registry")
            assert (left.uri, left.version) == (f"models:/agent-sre-tiny/{number}", str(number))
            run.point("registry")
            run.forget("registry")
            assert run.send("registry") == left, "the version is there already"
        # 9 comes after 10 where versions are compared as texts.
        assert self.aliases(mlflow) == {"champion": "11", "previous": "10"}
        version = self.ask(mlflow, "model-versions/get", name="agent-sre-tiny", version="11")["model_version"]
        tags = {tag["key"]: tag["value"] for tag in version["tags"]}
        assert version["source"] == "s3://models/agent-sre/m11"
        assert version["status"] == "READY"
        assert tags["trainyard.dev/run"] == "m11"
        assert tags["trainyard.dev/dataset"] == "sha256:d1"
        assert tags["trainyard.dev/gitCommit"] == "f00dfeed" * 5
        for _ in range(2):
            runs[-1].point("registry", back=True)
            assert self.aliases(mlflow) == {"champion": "10", "previous": "11"}

    def test_a_stage_is_an_alias(self, tmp_path: Path, s3: Server, mlflow: Server) -> None:
        for name in ("s1", "s2"):
            run = self.run(tmp_path, s3, mlflow, name=name, model="staged", alias=None, stage="Production")
            run.send("store")
            run.send("registry")
            run.point("registry")
        assert self.aliases(mlflow, "staged") == {"Production": "2", "previous-Production": "1"}

    def test_mlflows_own_client_finds_the_champion(self, tmp_path: Path, s3: Server, mlflow: Server) -> None:
        run = self.run(tmp_path, s3, mlflow, name="own", model="own")
        for name in ("store", "registry"):
            run.send(name)
        run.point("registry")
        script = (
            "import mlflow; mlflow.set_registry_uri(URL); c = mlflow.MlflowClient(URL, URL); "
            "v = c.get_model_version_by_alias('own', 'champion'); print(v.source, v.tags['trainyard.dev/digest'])"
        )
        python = restartable.mlflow_program().with_name("python")
        words = [str(python), "-c", script.replace("URL", repr(mlflow.url))]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert said == ["s3://models/agent-sre/own", run.send("store").digest]

    def test_what_is_known_before_the_training(self, tmp_path: Path, s3: Server, mlflow: Server) -> None:
        target = {"name": "registry", "mlflow": {"trackingUri": mlflow.url, "model": "m"}}
        with pytest.raises(UserError, match="no export of dependsOn puts them anywhere"):
            trained(tmp_path, [target]).check("registry")
        with pytest.raises(UserError, match="did not answer in 3 tries") as caught:
            self.run(tmp_path, s3, mlflow, name="x", trackingUri="http://127.0.0.1:9").check("registry")
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE


class TestOci:
    def run(self, tmp_path: Path, registry: Server, *, name: str = "one", login: Any = None, **fields: Any) -> Trained:
        host = registry.url.removeprefix("http://")
        user, password = login or restartable.REGISTRY_LOGIN
        target = {
            "image": f"{host}/lab/{{agent}}:{{version}}",
            "insecure": True,
            "secretRef": {"name": "push"},
            **fields,
        }
        secrets = {"push": {"username": user, "password": password}}
        exports = [{"name": "image", "oci": target}]
        return trained(tmp_path, exports, name=name, version=name, secrets=secrets, sizes=SIZES)

    def get(self, registry: Server, what: str) -> Any:
        import urllib3

        headers = urllib3.make_headers(basic_auth=":".join(restartable.REGISTRY_LOGIN))
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        answer = HTTP.request("GET", f"{registry.url}/v2/lab/agent-sre/{what}", headers={**headers, "Accept": accept})
        assert answer.status == 200, (what, answer.data)
        return answer

    def test_what_is_pulled_is_what_was_trained(self, tmp_path: Path, registry: Server) -> None:
        run = self.run(tmp_path, registry)
        run.check("image")
        left = run.send("image")
        answer = self.get(registry, "manifests/one")
        assert answer.headers["Docker-Content-Digest"] == left.version
        chosen = next(m for m in answer.json()["manifests"] if m["platform"]["architecture"] == "arm64")
        layers = self.get(registry, f"manifests/{chosen['digest']}").json()["layers"]
        place = tmp_path / "pulled"
        for number, layer in enumerate(layers):
            (tmp_path / f"{number}.tar").write_bytes(self.get(registry, f"blobs/{layer['digest']}").data)
            with tarfile.open(tmp_path / f"{number}.tar") as archive:
                archive.extractall(place, filter="data")
        for file in SIZES:
            assert (place / "models" / file).read_bytes() == (run.context.model_dir / file).read_bytes()
        run.forget("image")
        assert run.send("image") == left

    def test_tags_that_move_and_tags_that_do_not(self, tmp_path: Path, registry: Server) -> None:
        digests = {}
        for name in ("t1", "t2"):
            run = self.run(tmp_path, registry, name=name, alias="champion")
            digests[name] = run.send("image").version
            run.point("image")
        held = lambda tag: self.get(registry, f"manifests/{tag}").headers["Docker-Content-Digest"]  # noqa: E731
        assert (held("champion"), held("champion-previous")) == (digests["t2"], digests["t1"])
        for _ in range(2):
            run.point("image", back=True)
            assert (held("champion"), held("champion-previous")) == (digests["t1"], digests["t2"])
        host = registry.url.removeprefix("http://")
        other = self.run(tmp_path, registry, name="t3", image=f"{host}/lab/{{agent}}:t1")
        with pytest.raises(UserError, match="the tag is another image"):
            other.send("image")

    def test_an_ordinary_tool_pulls_it(self, tmp_path: Path, registry: Server) -> None:
        """buildah, which builds the project's own images."""
        run = self.run(tmp_path, registry, name="buildah")
        reference = run.send("image").uri.removeprefix("oci://")

        def buildah(*words: str) -> str:
            place = [
                "--root",
                str(tmp_path / "images"),
                "--runroot",
                str(tmp_path / "state"),
                "--storage-driver",
                "vfs",
            ]
            done = subprocess.run(["buildah", *place, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        credentials = f"--creds={':'.join(restartable.REGISTRY_LOGIN)}"
        container = buildah("from", "--tls-verify=false", credentials, f"docker://{reference}")
        mounted = Path(buildah("mount", container))
        try:
            for file in SIZES:
                assert (mounted / "models" / file).read_bytes() == (run.context.model_dir / file).read_bytes()
        finally:
            buildah("umount", container)

    def test_what_is_known_before_the_training(self, tmp_path: Path, registry: Server) -> None:
        with pytest.raises(UserError, match=r"the registry refuses access \(HTTP 401\)") as caught:
            self.run(tmp_path, registry, login=("bot", "wrong-horse")).check("image")
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert "horse" not in str(caught.value)
        with pytest.raises(UserError, match="speaks http, not https"):
            self.run(tmp_path, registry, insecure=False).check("image")
