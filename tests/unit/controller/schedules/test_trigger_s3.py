"""The `dataset` trigger on an S3 store: signatures as Amazon documents them, and a whole server on loopback."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from trainyard.api.schedule.triggers import DatasetDrift
from trainyard.controller.schedules.triggers import dataset
from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.door import Door
from trainyard.controller.schedules.triggers.s3 import Store
from trainyard.controller.schedules.triggers.wall import Wall

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}
NOW = datetime(2013, 5, 24, tzinfo=UTC)


def test_the_signature_of_amazons_own_example() -> None:
    headers = Store.of(KEYS).sign(
        "https://examplebucket.s3.amazonaws.com/test.txt", now=NOW, headers={"Range": "bytes=0-9"}
    )
    assert headers["Authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_the_signature_of_another_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: NOW.replace(tzinfo=None))
    store = Store.of(
        KEYS | {"AWS_SESSION_TOKEN": "t", "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "http://minio:9000/"}
    )
    url = store.address("s3://data/a folder/ü~(1).jsonl")
    assert url == "http://minio:9000/data/a%20folder/%C3%BC~%281%29.jsonl"
    ours = store.sign(url, now=NOW, headers={"If-None-Match": '"x"'})
    request = AWSRequest(
        "GET", url, headers={k: v for k, v in ours.items() if k in ("If-None-Match", "x-amz-content-sha256")}
    )
    credentials = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], "t")
    S3SigV4Auth(credentials, "s3", "eu-central-1").add_auth(request)
    assert ours["Authorization"] == request.headers["Authorization"]


def test_without_keys_nothing_is_signed_and_nothing_is_ever_shown() -> None:
    assert "Authorization" not in Store().sign("https://s3.amazonaws.com/b/k", now=NOW)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in repr(Access(store=Store.of(KEYS)))


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3:///key", "s3://bucket/key?versionId=1", "ftp://a/b", "s3://bucket/a b"]
)
def test_addresses_that_name_no_object(url: str) -> None:
    with pytest.raises(ValidationError):
        DatasetDrift(url=url)


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_an_object_is_downloaded_only_when_it_has_changed(endpoint: str) -> None:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="data")
    door = Door(Access(store=Store.of(KEYS | {"AWS_ENDPOINT_URL": endpoint})), Wall(Rules()))
    spec = DatasetDrift(url="s3://data/calls/today+1.jsonl")

    def read(marks: Mapping[str, str]) -> Answer:
        return dataset.read(door, spec, marks, now=NOW)

    with pytest.raises(SourceDown, match="HTTP 404"):
        read({})
    client.put_object(Bucket="data", Key="calls/today+1.jsonl", Body=b"1\n2\n")
    first = read({})
    assert first.observed.startswith("2 lines")
    assert read(first.marks).token == first.token
    client.put_object(Bucket="data", Key="calls/today+1.jsonl", Body=b"1\n2\n3\n")
    assert read(first.marks).token != first.token


def test_a_key_with_dots_is_asked_as_it_was_signed(endpoint: str) -> None:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="dots")
    client.put_object(Bucket="dots", Key="a/./b%20c", Body=b"1\n")
    door = Door(Access(store=Store.of(KEYS | {"AWS_ENDPOINT_URL": endpoint})), Wall(Rules()))
    assert dataset.read(door, DatasetDrift(url="s3://dots/a/./b%20c"), {}, now=NOW).observed.startswith("1 lines")
