"""The image of a model: the same bytes wherever and whenever it is made, and files that any tar finds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.errors import UserError
from trainyard.trainer.exports import image
from trainyard.trainer.exports.distribution import Credentials, Reference
from trainyard.trainer.exports.image import image_of
from trainyard.trainer.exports.package import Package, package
from trainyard.trainer.volume.commit import commit_folder

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 700, "adapter/a" + "b" * 120: b"x" * 512}


def packed(place: Path) -> Package:
    def write(folder: Path) -> None:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return package([("", commit_folder(place, write))])


def test_the_same_model_is_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "LARGE", 1000)
    one, other = packed(tmp_path / "one"), packed(tmp_path / "other")
    for file in other.files:
        os.utime(file.path, (1, 1))
        file.path.chmod(0o600)
    assert image_of(one, {"a": "b"}).index.digest == image_of(other, {"a": "b"}).index.digest
    assert image_of(one, {"a": "c"}).index.digest != image_of(other, {"a": "b"}).index.digest


def test_layers_hold_every_file_once_below_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "LARGE", 1000)
    made = image_of(packed(tmp_path / "one"), {})
    layers = [blob for blob in made.blobs if blob.kind == image.LAYER]
    assert len(layers) == 2, "the large file has its own"
    found: dict[str, bytes] = {}
    for layer in layers:
        content = layer.open().read()
        assert len(content) == layer.size
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer.digest
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
                if entry.isfile():
                    assert entry.name not in found
                    found[entry.name] = archive.extractfile(entry).read()  # type: ignore[union-attr]
    assert found == {f"models/{name}": content for name, content in FILES.items()}
    assert layers[1].descriptor["annotations"] == {image.FILE_PATH: "model.safetensors"}


def test_each_architecture_has_the_same_layers(tmp_path: Path) -> None:
    made = image_of(packed(tmp_path / "one"), {})
    index = json.loads(made.index.content or b"")
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    manifests = [json.loads(blob.content or b"") for blob in made.manifests]
    assert manifests[0]["layers"] == manifests[1]["layers"]
    configs = {blob.digest: json.loads(blob.content or b"") for blob in made.blobs if blob.kind == image.CONFIG}
    for entry, manifest in zip(index["manifests"], manifests, strict=True):
        config = configs[manifest["config"]["digest"]]
        assert config["architecture"] == entry["platform"]["architecture"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


def test_a_file_that_shrinks_meanwhile_is_no_layer(tmp_path: Path) -> None:
    made = packed(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(OSError, match=r"model\.safetensors has lost"):
        image_of(made, {})


def docker_config(**auths: Any) -> dict[str, str]:
    return {".dockerconfigjson": json.dumps({"auths": auths})}


AUTH = {"auth": base64.b64encode(b"bot:correct-horse").decode()}


@pytest.mark.parametrize(
    ("secret", "host"),
    [
        ({"username": "bot", "password": "correct-horse"}, "r.example.org"),
        (docker_config(**{"r.example.org:5000": AUTH}), "r.example.org:5000"),
        (docker_config(**{"https://index.docker.io/v1/": AUTH}), "docker.io"),
        (docker_config(**{"r.example.org": {"username": "bot", "password": "correct-horse"}}), "r.example.org"),
    ],
)
def test_credentials_of_a_registry(secret: dict[str, str], host: str) -> None:
    found = Credentials.read(secret, host, told="x")
    assert (found.username, found.password) == ("bot", "correct-horse")
    assert "horse" not in repr(found)


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (docker_config(**{"other.example.org": AUTH}), "has credentials for other.example.org, not for r.example.org"),
        ({".dockerconfigjson": "{"}, "is not what kubectl create secret docker-registry makes"),
        ({".dockerconfigjson": '{"auths": {"r.example.org": {"auth": "!"}}}'}, "is not what kubectl create secret"),
    ],
)
def test_credentials_that_are_none(secret: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Credentials.read(secret, "r.example.org", told="x")


def test_a_reference() -> None:
    assert Reference.parse("localhost:5001/a/b:v1") == Reference("localhost:5001", "a/b", "v1")
