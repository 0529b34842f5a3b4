"""Models from a bucket, a web server and another run: fetched once, settled once, refused with the reason."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from safetensors.numpy import save

from tests.unit.trainer.run_contexts import context_of
from tests.unit.trainer.volume.gguf_files import small, write
from tests.webserver import Asked, Reply, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError
from trainyard.trainer.evaluation.champion import check_champion
from trainyard.trainer.exports.gguf_files.suitable import check_suitable
from trainyard.trainer.models.base import check_model
from trainyard.trainer.volume import bases, remote
from trainyard.trainer.volume.bases import base_folder
from trainyard.trainer.volume.commit import commit_folder
from trainyard.trainer.volume.origin import revision_of

WEIGHTS = save({"model.embed_tokens.weight": np.zeros((40, 8), np.float32)})
FILES = {
    "config.json": json.dumps({"model_type": "llama", "max_position_embeddings": 128}).encode(),
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
}
EXTRA = {"pytorch_model.bin": b"pickle", "modeling.py": b"import os", "original/model.safetensors": b"x"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))


def context(tmp_path: Path, uri: str, *, secret: dict[str, str] | None = None, **spec: Any) -> RunContext:
    model: dict[str, Any] = {"storageUri": uri}
    if secret is not None:
        model["secretRef"] = {"name": "access"}
        for name, value in secret.items():
            write(tmp_path / "secrets" / "access" / name, value.encode())
    text = {"name": "d", "inline": {"text": "some text"}}
    whole = {"model": model, "datasets": [text], "training": {"method": "CPT", "maxLength": 64}, **spec}
    return context_of(tmp_path, whole)


def refused(made: RunContext) -> str:
    with pytest.raises(UserError) as caught:
        base_folder(made)
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    return str(caught.value)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"manifest.json"}


class Server:
    """Files by path; counts what is asked."""

    def __init__(self, files: dict[str, bytes], *, token: str = "") -> None:
        self.files, self.token, self.asked = files, token, [""]

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked.path)
        if self.token and asked.authorization != f"Bearer {self.token}":
            return Reply({}, 401)
        body = self.files.get(asked.path.partition("?")[0])
        return Reply({}, 404) if body is None else Reply(body, headers={"ETag": f'"{hash(body)}"'})


def packed(files: dict[str, bytes], prefix: str = "model/") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


class TestWebServer:
    def test_a_folder_by_the_usual_names(self, tmp_path: Path) -> None:
        server = Server({f"/m/{name}": content for name, content in {**FILES, **EXTRA}.items()})
        with web(server.answer) as web_server:
            made = context(tmp_path, f"{web_server.url}/m/")
            check_model(made)
            folder = base_folder(made)
            assert names(folder) == set(FILES)
            assert folder.is_relative_to(made.run_dir)
            assert (folder / "model.safetensors").read_bytes() == WEIGHTS
            assert str(revision_of(folder)).startswith("sha256:")
        assert base_folder(made) == folder, "settled: nobody is asked again, and the server is gone"

    def test_shards_by_their_index(self, tmp_path: Path) -> None:
        index = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).encode()
        shards = {f"/model-{n}-of-2.safetensors": WEIGHTS for n in (1, 2)}
        server = Server({"/config.json": FILES["config.json"], "/model.safetensors.index.json": index, **shards})
        with web(server.answer) as web_server:
            folder = base_folder(context(tmp_path, f"{web_server.url}/"))
        assert {"model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"} < names(folder)

    def test_an_index_that_names_files_elsewhere(self, tmp_path: Path) -> None:
        index = json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode()
        server = Server({"/config.json": b"{}", "/model.safetensors.index.json": index})
        with web(server.answer) as web_server:
            assert "names '../../etc/passwd' (it may name files beside it only)" in refused(
                context(tmp_path, f"{web_server.url}/")
            )

    def test_an_archive_without_the_folders_around_it(self, tmp_path: Path) -> None:
        server = Server({"/m.tar.gz": packed({**FILES, "pytorch_model.bin": b"x"}, "deep/../model/")})
        with web(server.answer) as web_server:
            folder = base_folder(context(tmp_path, f"{web_server.url}/m.tar.gz"))
        assert names(folder) == set(FILES)

    def test_archives_that_are_no_model(self, tmp_path: Path) -> None:
        many = packed(FILES, "a/") and packed({"a/config.json": b"{}", "b/config.json": b"{}"}, "")
        server = Server({"/two.tgz": many, "/none.tgz": packed({"x.txt": b""}), "/odd.tar": b"no archive"})
        with web(server.answer) as web_server:
            assert "holds files in 2 folders" in refused(context(tmp_path, f"{web_server.url}/two.tgz"))
            assert "holds no config.json" in refused(context(tmp_path, f"{web_server.url}/none.tgz"))
            assert "is no archive that can be read" in refused(context(tmp_path, f"{web_server.url}/odd.tar"))

    def test_refusals_name_the_secret(self, tmp_path: Path) -> None:
        server = Server({f"/{name}": content for name, content in FILES.items()}, token="t0ken-t0ken")
        with web(server.answer) as web_server:
            told = refused(context(tmp_path, f"{web_server.url}/"))
            assert "access is refused (HTTP 401) (give spec.model.secretRef with the credentials)" in told
            base_folder(context(tmp_path, f"{web_server.url}/", secret={"token": "t0ken-t0ken"}))

    def test_nothing_there_and_nobody_there(self, tmp_path: Path) -> None:
        with web(Server({}).answer) as web_server:
            assert "it has no config.json (check the address" in refused(context(tmp_path, f"{web_server.url}/m"))
        with pytest.raises(UserError, match="did not answer in 3 tries") as caught:
            base_folder(context(tmp_path, "http://127.0.0.1:9/m"))
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_prefix_of_a_bucket(tmp_path: Path, store: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k" * 8, "AWS_SECRET_ACCESS_KEY": "s" * 8, "AWS_ENDPOINT_URL": store}
    client = boto3.client(
        "s3", endpoint_url=store, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    client.create_bucket(Bucket="models")
    for name, content in {**FILES, **EXTRA}.items():
        client.put_object(Bucket="models", Key=f"llama/{name}", Body=content)
    cache = {"cache": {"claimName": "c"}}
    made = context(tmp_path, "s3://models/llama", secret=keys, storage=cache)
    folder = base_folder(made)
    assert names(folder) == set(FILES)
    assert folder.is_relative_to(made.cache_dir)

    other = context_of(tmp_path, {**made.run.spec.model_dump(by_alias=True, exclude_none=True, mode="json")})
    (made.run_dir / bases.FOLDER).rename(tmp_path / "gone")
    assert base_folder(other) == folder, "another run finds it in the cache"

    client.put_object(Bucket="models", Key="llama/config.json", Body=FILES["config.json"] + b"\n")
    (made.run_dir / bases.FOLDER).rename(tmp_path / "gone too")
    assert base_folder(other) != folder, "what was replaced is fetched anew"

    champion = bases.Address("s3://models/llama", made.model.secret_ref, "spec.evaluation.compareWith")
    plain = context_of(tmp_path, {**other.run.spec.model_dump(by_alias=True, exclude_none=True, mode="json")})
    assert names(bases.model_folder(champion, plain)) == set(FILES), "a champion lies where a base may lie"

    assert "there is no config.json below that prefix" in refused(context(tmp_path, "s3://models/nothing", secret=keys))
    assert "nothing is there" in refused(context(tmp_path, "s3://absent/x", secret=keys))


class TestOtherRuns:
    def result(self, volume: Path, name: str, *, place: str = "model") -> Path:
        def fill(folder: Path) -> None:
            for file, content in FILES.items():
                (folder / file).write_bytes(content)

        return commit_folder(volume / name / place, fill).path

    def of(self, tmp_path: Path, uri: str) -> RunContext:
        return context(tmp_path, uri, storage={"checkpoints": {"claimName": "shared"}})

    def test_the_newest_of_that_name(self, tmp_path: Path) -> None:
        made = self.of(tmp_path, "run://first")
        self.result(made.volume, "first-thing-else")
        wanted = self.result(made.volume, "first-0a1b2c3d")
        assert base_folder(made) == wanted
        self.result(made.volume, "first-99999999")
        assert base_folder(made) == wanted, "settled"

    def test_a_phase(self, tmp_path: Path) -> None:
        made = self.of(tmp_path, "run://first/two")
        wanted = self.result(made.volume, "first-0a1b2c3d", place="phases/two/model")
        assert base_folder(made) == wanted

    def test_none_and_an_adapter(self, tmp_path: Path) -> None:
        made = self.of(tmp_path, "run://first")
        self.result(made.volume, "other-0a1b2c3d")
        assert "no result of such a run on this volume (runs with a model here: other-0a1b2c3d;" in refused(made)
        self.result(made.volume, "first-0a1b2c3d", place="adapter")
        assert "run first has left an adapter and no model" in refused(made)

    def test_it_needs_the_others_volume(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"name the other run's in spec\.storage"):
            context(tmp_path, "run://first")


def test_a_store_over_a_folder_has_no_etag_of_a_file_that_was_laid_there() -> None:
    assert remote._mark({"LastModified": "Sat"}) == "Sat"
    assert remote._mark({"LastModified": "Sat", "ETag": '"a"'}) == '"a"'


def test_a_champion_in_a_bucket_is_looked_for_before_the_training(tmp_path: Path, store: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k" * 8, "AWS_SECRET_ACCESS_KEY": "s" * 8, "AWS_ENDPOINT_URL": store}
    champion = {"storageUri": "s3://nowhere/champion", "secretRef": {"name": "access"}}
    evaluation = {"gates": [{"metric": "loss", "minimumGain": 0}], "compareWith": champion}
    text = {"name": "d", "inline": {"text": "some text"}, "split": {"eval": 0.5}}
    made = context(tmp_path, "hf://org/name", secret=keys, evaluation=evaluation, datasets=[text])
    with pytest.raises(UserError, match="s3://nowhere/champion: nothing is there"):
        check_champion(made)


def test_an_export_as_gguf_looks_at_a_base_that_has_to_be_fetched_first(tmp_path: Path) -> None:
    config = json.dumps({"architectures": ["NobodyForCausalLM"]}).encode()
    server = Server({f"/m/{name}": content for name, content in {**FILES, "config.json": config}.items()})
    with web(server.answer) as web_server, pytest.raises(UserError, match="NobodyForCausalLM"):
        check_suitable(context(tmp_path, f"{web_server.url}/m/"), field="spec.exports[files].gguf")


def test_a_damaged_file_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    made = context(tmp_path, "pvc://m/x.gguf")
    write(tmp_path / "volumes" / "m" / "x.gguf", small()[:-50])
    assert "pvc://m/x.gguf is cut off" in refused(made)
    assert not (made.run_dir / bases.FOLDER).exists()
    assert "spec.model.storageUri pvc://m/y.gguf is not a file" in refused(context(tmp_path, "pvc://m/y.gguf"))


def test_a_link_out_of_the_claim_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "volumes" / "m").mkdir(parents=True)
    (tmp_path / "volumes" / "m" / "x.gguf").symlink_to(write(tmp_path / "secret.gguf", small()))
    assert "leads to" in refused(context(tmp_path, "pvc://m/x.gguf"))


def test_a_folder_with_nothing_but_gguf_says_how_to_name_the_file(tmp_path: Path) -> None:
    write(tmp_path / "volumes" / "m" / "base" / "a.gguf", small())
    write(tmp_path / "volumes" / "m" / "base" / "config.json", FILES["config.json"])
    with pytest.raises(UserError, match=r"name the file itself: pvc://m/base/a.gguf"):
        check_model(context(tmp_path, "pvc://m/base"))
