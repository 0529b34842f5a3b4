"""A dataset behind a signed address: it comes from a Secret, and nobody reads it anywhere."""

from pathlib import Path

import pytest

from tests.webserver import Asked, Reply, web
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import fetch
from trainyard.trainer.errors import UserError

SIGNED = "X-Amz-Expires=60&X-Amz-Signature=0123456789abcdef"


def dataset(tmp_path: Path, url: str) -> Dataset:
    (tmp_path / "secrets" / "signed").mkdir(parents=True)
    (tmp_path / "secrets" / "signed" / "url").write_text(f"{url}?{SIGNED}\n")
    told = "https://bucket.example.org/train.jsonl"
    return Dataset.model_validate({"name": "d", "storageUri": told, "secretRef": {"name": "signed"}})


def fetched(wanted: Dataset, tmp_path: Path) -> str:
    (file,) = fetch(wanted, volumes=tmp_path, secrets=tmp_path / "secrets", staging=tmp_path)
    assert file.name == "train.jsonl"
    return file.path.read_text()


def test_the_address_of_the_secret_is_asked_as_it_stands(tmp_path: Path):
    with web(lambda asked: Reply(b'{"text": "a"}\n')) as store:
        assert fetched(dataset(tmp_path, f"{store.url}/x"), tmp_path) == '{"text": "a"}\n'
    assert store.asked[0].target == f"/x?{SIGNED}"


@pytest.mark.parametrize("status", [400, 403, 410, 404])
def test_an_address_that_has_expired_is_told_without_itself(tmp_path: Path, status: int):
    def answer(asked: Asked) -> Reply:
        return Reply(f"Request has expired: {asked.target}".encode(), status=status)

    with web(answer) as store, pytest.raises(UserError) as caught:
        fetched(dataset(tmp_path, f"{store.url}/x"), tmp_path)
    said = str(caught.value)
    assert "bucket.example.org/train.jsonl" in said
    assert str(status) in said
    assert "0123456789abcdef" not in said
    assert store.url not in said
    if status != 404:
        assert "expire" in said


def test_what_is_no_address_is_refused(tmp_path: Path):
    (tmp_path / "secrets" / "signed").mkdir(parents=True)
    wanted = dataset_with(tmp_path, "s3://bucket/key")
    with pytest.raises(UserError, match="no address"):
        fetched(wanted, tmp_path)


def dataset_with(tmp_path: Path, text: str) -> Dataset:
    (tmp_path / "secrets" / "signed" / "url").write_text(text)
    told = "https://bucket.example.org/train.jsonl"
    return Dataset.model_validate({"name": "d", "storageUri": told, "secretRef": {"name": "signed"}})
