"""Data from where data lies: the web with and without a password, an S3 bucket, a volume."""

import json

import pytest

from tests.e2e import runs
from tests.e2e.kube import Kube, Object
from tests.e2e.web import ADDRESS, PASSWORD, USER, serving
from trainyard.controller.kube.resources import SECRETS

pytestmark = pytest.mark.timeout(300)

LINES = b"".join(json.dumps({"text": f"record number {n} " * 20}).encode() + b"\n" for n in range(50))


def checked(kube: Kube, namespace: str, name: str, dataset: Object) -> Object:
    """The run after the dataset was fetched and every record looked at."""
    runs.apply(kube, namespace, runs.tiny(name, datasets=[{"name": "corpus", **dataset}], mode="DryRun"))
    return runs.until_succeeded(kube, namespace, name, seconds=90)


def test_from_the_web_with_a_password(kube: Kube, space: str) -> None:
    login = {"username": USER, "password": PASSWORD}
    kube.create(SECRETS, space, {"metadata": {"name": "login"}, "stringData": login})
    with serving({"private/corpus.jsonl": LINES}) as web:
        source = {"storageUri": f"{web.url}/private/corpus.jsonl", "secretRef": {"name": "login"}}
        run = checked(kube, space, "web", source)
        assert web.asked
    assert run["status"]["dataset"]["records"] == 50
    pod = runs.pods(kube, space, "web")[0]
    assert PASSWORD not in kube.log(space, pod["metadata"]["name"])
    assert PASSWORD not in json.dumps([run, pod])


def test_a_wrong_password_is_told_without_telling_it(kube: Kube, space: str) -> None:
    login = {"username": USER, "password": "open sesame"}
    kube.create(SECRETS, space, {"metadata": {"name": "login"}, "stringData": login})
    with serving({"private/corpus.jsonl": LINES}) as web:
        source = {"storageUri": f"{web.url}/private/corpus.jsonl", "secretRef": {"name": "login"}}
        runs.apply(kube, space, runs.tiny("web", datasets=[{"name": "corpus", **source}]))
        run = runs.until_finished(kube, space, "web", seconds=60)
    assert run["status"]["failure"]["reason"] == "InvalidData"
    assert "check the values in secretRef" in runs.message(run)
    assert "open sesame" not in json.dumps(run)


def test_from_a_bucket(kube: Kube, space: str) -> None:
    """An S3 API on this machine; the endpoint stands in the Secret, as it does for MinIO and the like."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=ADDRESS, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = f"http://{ADDRESS}:{port}"
        fill(endpoint)
        secret = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": endpoint}
        kube.create(SECRETS, space, {"metadata": {"name": "bucket"}, "stringData": secret})
        source = {"storageUri": "s3://corpora/2026/corpus.jsonl", "secretRef": {"name": "bucket"}}
        run = checked(kube, space, "bucket", source)
    finally:
        server.stop()
    assert run["status"]["dataset"]["records"] == 50


def fill(endpoint: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="corpora")
    client.put_object(Bucket="corpora", Key="2026/corpus.jsonl", Body=LINES)
