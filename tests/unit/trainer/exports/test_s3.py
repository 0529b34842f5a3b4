"""A model in a bucket: boto3's own client, and moto's S3 on the loopback address. Real stores are in tests/servers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.unit.trainer.exports.results import Trained, trained
from tests.webserver import Reply, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.s3 import pointer_of

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "correct-horse"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, tmp_path: Path) -> Any:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="models")
    yield client
    for entry in keys(client):
        client.delete_object(Bucket="models", Key=entry)


def keys(store: Any) -> list[str]:
    return [o["Key"] for o in store.list_objects_v2(Bucket="models").get("Contents", [])]


def document(store: Any, key: str) -> Any:
    return json.loads(store.get_object(Bucket="models", Key=key)["Body"].read())


def run_of(tmp_path: Path, endpoint: str, /, *, name: str = "tiny", version: str = "v1", **target: Any) -> Trained:
    fields = {
        "uri": "s3://models/{agent}/{version}/",
        "endpoint": endpoint,
        "secretRef": {"name": "store"},
        "latest": True,
    }
    sizes = target.pop("sizes", None)
    exports = [{"name": "store", "s3": fields | target}]
    return trained(tmp_path, exports, name=name, version=version, secrets={"store": KEYS}, sizes=sizes)


def test_files_a_manifest_and_what_points_at_them(tmp_path: Path, endpoint: str, store: Any) -> None:
    run = run_of(tmp_path, endpoint)
    run.check("store")
    assert keys(store) == [], "a check leaves nothing"
    left = run.send("store")
    names = ["config.json", "manifest.json", "model.safetensors", "tokenizer.json"]
    assert keys(store) == [f"agent-sre/v1/{name}" for name in names]
    manifest = document(store, "agent-sre/v1/manifest.json")
    assert manifest["digest"] == left.digest
    assert (manifest["run"], manifest["dataset"], manifest["gitCommit"][:8]) == ("tiny", "sha256:d1", "f00dfeed")
    for name, entry in manifest["files"].items():
        content = store.get_object(Bucket="models", Key=f"agent-sre/v1/{name}")["Body"].read()
        assert content == (run.context.model_dir / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    run.point("store")
    assert document(store, "agent-sre/latest.json") == {
        "uri": "s3://models/agent-sre/v1/",
        "digest": left.digest,
        "version": "v1",
        "run": "lab/tiny",
    }


def test_the_same_again_sends_nothing(tmp_path: Path, endpoint: str, store: Any) -> None:
    run = run_of(tmp_path, endpoint)
    first = run.send("store")
    before = store.list_objects_v2(Bucket="models")["Contents"]
    run.forget("store")
    assert run.send("store") == first
    assert store.list_objects_v2(Bucket="models")["Contents"] == before


def test_an_interrupted_one_goes_on_with_what_is_missing_or_damaged(tmp_path: Path, endpoint: str, store: Any) -> None:
    run = run_of(tmp_path, endpoint)
    run.send("store")
    run.forget("store")
    good = store.head_object(Bucket="models", Key="agent-sre/v1/config.json")["LastModified"]
    store.delete_object(Bucket="models", Key="agent-sre/v1/manifest.json")
    store.delete_object(Bucket="models", Key="agent-sre/v1/tokenizer.json")
    store.put_object(Bucket="models", Key="agent-sre/v1/model.safetensors", Body=bytes(3000))
    run.send("store")
    assert store.head_object(Bucket="models", Key="agent-sre/v1/config.json")["LastModified"] == good
    content = store.get_object(Bucket="models", Key="agent-sre/v1/model.safetensors")["Body"].read()
    assert content == (run.context.model_dir / "model.safetensors").read_bytes()


def test_a_folder_with_another_model_stays_what_it_is(tmp_path: Path, endpoint: str, store: Any) -> None:
    run_of(tmp_path, endpoint).send("store")
    before = store.list_objects_v2(Bucket="models")["Contents"]
    other = run_of(tmp_path, endpoint, name="other")
    for ask in (other.check, other.send):
        with pytest.raises(UserError, match=r"holds (another model|the model of run tiny)") as caught:
            ask("store")
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    assert store.list_objects_v2(Bucket="models")["Contents"] == before


def test_a_folder_with_files_of_somebody_else(tmp_path: Path, endpoint: str, store: Any) -> None:
    store.put_object(Bucket="models", Key="agent-sre/v1/model-00001-of-00002.safetensors", Body=b"x")
    with pytest.raises(UserError, match="that are not of this model"):
        run_of(tmp_path, endpoint).send("store")


def test_what_was_damaged_on_the_volume_is_not_handed_out(tmp_path: Path, endpoint: str, store: Any) -> None:
    run = run_of(tmp_path, endpoint)
    (run.context.model_dir / "model.safetensors").write_bytes(bytes(3000))
    with pytest.raises(UserError, match=r"model.safetensors has been changed") as caught:
        run.send("store")
    assert caught.value.exit_code == ExitCode.STORAGE
    assert keys(store) == []


def test_back_names_the_folder_before(tmp_path: Path, endpoint: str, store: Any) -> None:
    runs = [run_of(tmp_path, endpoint, name=f"run-{n}", version=f"v{n}") for n in (1, 2)]
    for run in runs:
        run.send("store")
        for _ in range(2):
            run.point("store")
    newest = document(store, "agent-sre/latest.json")
    assert (newest["version"], newest["previous"]["version"]) == ("v2", "v1")
    for _ in range(2):  # the second time there is nothing left to be done
        runs[1].point("store", back=True)
        held = document(store, "agent-sre/latest.json")
        assert (held["version"], held["previous"]["version"]) == ("v1", "v2")
    runs[1].point("store")
    runs[0].point("store", back=True)
    assert document(store, "agent-sre/latest.json")["version"] == "v2", "another has taken its place"


def test_an_object_that_is_none_of_ours(tmp_path: Path, endpoint: str, store: Any) -> None:
    store.put_object(Bucket="models", Key="agent-sre/latest.json", Body=b"[]")
    run = run_of(tmp_path, endpoint)
    run.send("store")
    with pytest.raises(UserError, match="is none of ours"):
        run.point("store")


def test_the_adapter_lies_beside_the_model_it_was_merged_into(tmp_path: Path, endpoint: str, store: Any) -> None:
    fields = {"uri": "s3://models/{digest}", "endpoint": endpoint, "secretRef": {"name": "store"}}
    run = trained(tmp_path, [{"name": "store", "s3": fields}], secrets={"store": KEYS}, adapter=True)
    left = run.send("store")
    assert left.uri.startswith("s3://models/")
    folder = left.uri.removeprefix("s3://models/")
    assert {f"{folder}adapter/model.safetensors", f"{folder}model.safetensors"} <= set(keys(store))


@pytest.mark.parametrize(
    ("fields", "message", "code"),
    [
        (
            {"uri": "s3://nobody/{version}"},
            "the store refuses to write (HTTP 404): NoSuchBucket",
            ExitCode.INVALID_CONFIG,
        ),
        ({"secretRef": {"name": "absent"}}, "secret absent is not mounted", ExitCode.INVALID_CONFIG),
        ({"endpoint": "http://nowhere.invalid"}, "the host nowhere.invalid is unknown", ExitCode.INVALID_CONFIG),
        ({"endpoint": "http://127.0.0.1:9"}, "did not answer in 3 tries", ExitCode.SOURCE_UNAVAILABLE),
    ],
)
def test_what_is_known_before_the_training(
    tmp_path: Path,
    endpoint: str,
    store: Any,
    fields: dict[str, Any],
    message: str,
    code: ExitCode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainyard.trainer.data.bucket.PAUSES", (0.01, 0.01))
    with pytest.raises(UserError) as caught:
        run_of(tmp_path, endpoint, **fields).check("store")
    assert message in caught.value.message
    assert caught.value.message.startswith("spec.exports[store].s3")
    assert caught.value.exit_code == code
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "uri", "key"),
    [
        ("s3://b/{agent}/{version}/", "s3://b/sre/v1/", "sre/latest.json"),
        ("s3://b/{timestamp}", "s3://b/20261128_180500", "latest.json"),
        ("s3://b/x/{agent}-{digest}/model", "s3://b/x/sre-0123/model", "x/latest.json"),
        ("s3://b/x/v7", "s3://b/x/v7", "x/latest.json"),
        ("s3://b/x/{agent}", "s3://b/x/sre", "x/latest.json"),
        ("s3://b/x", "s3://b/x", "latest.json"),
    ],
)
def test_where_latest_lies(template: str, uri: str, key: str) -> None:
    assert pointer_of(template, uri) == key


def test_an_address_that_is_no_store_is_told_before_the_training(tmp_path: Path) -> None:
    with web(lambda asked: Reply(b"<html>hello</html>")) as server:
        with pytest.raises(UserError, match=rf"{server.url} answers, and is no object store") as caught:
            run_of(tmp_path, server.url).check("store")
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        secure = server.url.replace("http://", "https://")
        with pytest.raises(UserError, match=r"speaks http, not https") as caught:
            run_of(tmp_path / "secure", secure).check("store")
        assert "write http:// in the endpoint" in caught.value.hint
