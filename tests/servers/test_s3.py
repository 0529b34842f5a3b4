"""Files and a ready-built dataset in a real S3 server: versitygw, built from its Go module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.restartable import Server
from tests.servers.source_servers import versitygw
from tests.unit.trainer.data.collect.collecting import begin_anew, records, secret
from trainyard.api.exitcodes import ExitCode
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import fetch
from trainyard.trainer.errors import UserError
from trainyard.trainer.volume.commit import commit_folder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(2400)]

KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "correct-horse"}
URI = "s3://sets/v1/manifest.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("s3")
    (place / "data").mkdir()
    with versitygw(place / "data", access=KEYS["AWS_ACCESS_KEY_ID"], secret=KEYS["AWS_SECRET_ACCESS_KEY"]) as running:
        fill(running.url, place)
        yield running


def fill(endpoint: str, place: Path) -> None:
    """A committed dataset, through the server's own API."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )

    def write(folder: Path) -> dict[str, Any]:
        for split in ("train", "eval"):
            (folder / f"{split}.jsonl").write_text("".join(f'{{"text": "{split} {n}"}}\n' for n in range(1000)))
        return {}

    built = commit_folder(place / "v1", write).path
    client.create_bucket(Bucket="sets")
    for file in built.iterdir():
        client.upload_file(str(file), "sets", f"v1/{file.name}")


def login(place: Path, server: Server, **other: str) -> dict[str, str]:
    return secret(place, **{**KEYS, "AWS_ENDPOINT_URL": server.url, **other})


def test_a_dataset_with_its_manifest(tmp_path: Path, server: Server) -> None:
    found = records(tmp_path, manifest={"storageUri": URI}, secretRef=login(tmp_path, server))
    assert len(found) == 2000
    assert found[0] == {"text": "eval 0"}
    begin_anew(tmp_path)
    some = {"storageUri": URI, "include": ["train.jsonl"]}
    assert len(records(tmp_path, manifest=some, secretRef=login(tmp_path, server))) == 1000


def test_all_files_below_a_prefix(tmp_path: Path, server: Server) -> None:
    reference = login(tmp_path, server)
    dataset = Dataset.model_validate({"name": "d", "storageUri": "s3://sets/v1/", "secretRef": reference})
    (tmp_path / "staging").mkdir()
    found = fetch(dataset, volumes=tmp_path / "volumes", secrets=tmp_path / "secrets", staging=tmp_path / "staging")
    assert [f.name for f in found] == [f"s3://sets/v1/{n}" for n in ("eval.jsonl", "manifest.json", "train.jsonl")]


@pytest.mark.parametrize(
    ("keys", "uri", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, URI, "access is refused (HTTP 403)"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, URI, "access is refused (HTTP 403)"),
        ({}, "s3://sets/v2/manifest.json", "s3://sets/v2/manifest.json does not exist"),
        ({}, "s3://nothing/v1/manifest.json", "does not exist"),
    ],
)
def test_what_is_refused(tmp_path: Path, server: Server, keys: dict[str, str], uri: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        records(tmp_path, manifest={"storageUri": uri}, secretRef=login(tmp_path, server, **keys))
    assert message in caught.value.message
    assert caught.value.exit_code == ExitCode.INVALID_DATA
    assert "wrong" not in str(caught.value)
