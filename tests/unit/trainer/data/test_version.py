"""Dataset versions: the same inputs give the same digest, whatever happens meanwhile; the cache; the upload."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests import ROOT
from tests.unit.trainer import own_process
from tests.unit.trainer.data.test_select import context, inline
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.identity import identity_of
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.data.version import dataset_folder, ensure_dataset, upload
from trainyard.trainer.errors import UserError
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import find_damage, read_committed

CACHE = {"storage": {"cache": {"size": "1Gi"}}}
RECORDS = [{"text": f"record number {n} of a small corpus"} for n in range(50)]


def corpus(tmp_path: Path, records: list[dict[str, Any]] = RECORDS, name: str = "a.jsonl") -> dict[str, Any]:
    folder = tmp_path / "volumes" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in records))
    return {"storageUri": f"pvc://data/{name}", "split": {"eval": 0.2}}


def test_two_runs_on_two_volumes_give_the_same_version(tmp_path: Path) -> None:
    versions = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = ensure_dataset(context(tmp_path / name, corpus(tmp_path / name)))
        versions.append({k: v for k, v in made.manifest.items() if k != "statistics"})
    assert versions[0] == versions[1], "digest, counts, and the sha256 of every file"


def test_its_manifest_says_what_is_in_it(tmp_path: Path) -> None:
    made = ensure_dataset(context(tmp_path, corpus(tmp_path), inline({"text": "held"}, role="Test")))
    assert made.manifest["schema"] == "trainyard.dev/dataset/v1"
    assert set(made.manifest["files"]) == {"train/d0.jsonl", "eval/d0.jsonl", "test/d1.jsonl"}
    lines = {
        split: sum(f.read_bytes().count(b"\n") for f in (made.folder / split).glob("*.jsonl"))
        for split in ("train", "eval", "test")
    }
    assert {split: counts["records"] for split, counts in made.manifest["splits"].items()} == lines
    assert [(d["name"], d["role"], d["records"]) for d in made.manifest["datasets"]] == [
        ("d0", "Train", 50),
        ("d1", "Test", 1),
    ]
    page = (ROOT / "docs/data/formats.md").read_text()
    assert not [name for name in made.manifest if name != "version" and f"`{name}`" not in page]
    assert not [name for name in made.manifest["statistics"] if f"`{name}`" not in page]


KILLED = """
import os, sys
from importlib import import_module
from trainyard.trainer.context import read_context
from trainyard.trainer.data.version import ensure_dataset
module = import_module("trainyard.trainer.{module}")
inner, seen = module.{function}, [0]
def dying(*given, **named):
    seen[0] += 1
    if seen[0] == {call}:
        os.kill(os.getpid(), 9)
    return inner(*given, **named)
module.{function} = dying
ensure_dataset(read_context("prepare", {environment!r}))
"""


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        ("data.build", "check", 20),
        ("data.build", "_drop_duplicates", 1),
        ("data.build", "_write", 1),
        ("volume.commit", "find_damage", 1),
    ],
    ids=["while reading", "after reading", "while writing", "at the very end"],
)
def test_a_kill_at_any_time_changes_nothing(tmp_path: Path, module: str, function: str, call: int) -> None:
    (tmp_path / "undisturbed").mkdir()
    wanted = ensure_dataset(context(tmp_path / "undisturbed", corpus(tmp_path / "undisturbed"))).digest
    run = context(tmp_path, corpus(tmp_path))
    environment = {
        "TRAINYARD_RUN_FILE": str(tmp_path / "run.json"),
        "TRAINYARD_WORK_DIR": str(run.work_dir),
        "TRAINYARD_VOLUMES_DIR": str(tmp_path / "volumes"),
    }
    if module == "volume.commit":
        # The second attempt looks at what the first one committed, and is killed at that.
        ensure_dataset(run)
    code = KILLED.format(module=module, function=function, call=call, environment=environment)
    ended = own_process.run(code, environment=os.environ)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    if module != "volume.commit":
        assert read_committed(dataset_folder(run)) is None, "half a dataset must not look like one"
    prepare(run, Reporter("prepare", 2))
    found = read_committed(dataset_folder(run))
    assert found is not None
    assert found.manifest["digest"] == wanted
    assert find_damage(found) is None
    assert os.listdir(run.work_dir) == ["dataset"], "nothing is left over"


class TestCache:
    def other_run(self, tmp_path: Path, *datasets: dict[str, Any]) -> RunContext:
        run = context(tmp_path, *datasets, **CACHE)
        shutil.rmtree(run.work_dir)
        run.work_dir.mkdir()
        return run

    def test_a_later_run_takes_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = ensure_dataset(self.other_run(tmp_path, corpus(tmp_path)))
        assert "taken from the cache" not in capsys.readouterr().out
        second = ensure_dataset(self.other_run(tmp_path, corpus(tmp_path)))
        assert "taken from the cache" in capsys.readouterr().out
        assert dict(second.manifest) == dict(first.manifest)

    def test_another_content_or_spec_is_another_version(self, tmp_path: Path) -> None:
        first = ensure_dataset(self.other_run(tmp_path, corpus(tmp_path))).digest
        changed = ensure_dataset(self.other_run(tmp_path, corpus(tmp_path, RECORDS[1:]))).digest
        limited = ensure_dataset(self.other_run(tmp_path, {**corpus(tmp_path), "limit": 10})).digest
        assert len({first, changed, limited}) == 3
        assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 3

    def test_what_was_used_last_stays(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainyard.trainer.data.version.KEPT", 2)
        taken = []
        for limit in (10, 11, 10, 12, 10, 11):  # 11 is the oldest when 12 comes
            ensure_dataset(self.other_run(tmp_path, {**corpus(tmp_path), "limit": limit}))
            taken.append("taken from the cache" in capsys.readouterr().out)
        assert taken == [False, False, True, False, True, False]
        assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 2

    def test_a_damaged_copy_is_not_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = ensure_dataset(self.other_run(tmp_path, corpus(tmp_path))).digest
        (victim,) = (tmp_path / "cache" / "datasets").glob("*/train/*.jsonl")
        victim.write_bytes(victim.read_bytes().replace(b"number 1", b"number 7", 1))
        assert ensure_dataset(self.other_run(tmp_path, corpus(tmp_path))).digest == first
        assert "damaged" in capsys.readouterr().out

    def test_what_a_source_is_decides_not_when_it_was_written(self, tmp_path: Path) -> None:
        run = context(tmp_path, corpus(tmp_path))
        before = identity_of(run.datasets[0], run)
        os.utime(tmp_path / "volumes" / "data" / "a.jsonl", (1, 1))
        assert identity_of(run.datasets[0], run) == before
        corpus(tmp_path, RECORDS[::-1])
        assert identity_of(run.datasets[0], run) != before


class TestUpload:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        folder = tmp_path / "secrets" / "store"
        folder.mkdir(parents=True)
        for key, value in (
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ):
            (folder / key).write_text(value)
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="versions")
        yield client
        server.stop()

    def run(self, tmp_path: Path, uri: str = "s3://versions/built") -> RunContext:
        return context(tmp_path, corpus(tmp_path), datasetUpload={"storageUri": uri, "secretRef": {"name": "store"}})

    def test_the_manifest_comes_last_and_nothing_twice(
        self, tmp_path: Path, store: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = self.run(tmp_path)
        made = ensure_dataset(run)
        upload(run, made)
        objects = store.list_objects_v2(Bucket="versions")["Contents"]
        newest = max(objects, key=lambda o: o["LastModified"])["LastModified"]
        manifest = next(o for o in objects if o["Key"] == f"built/{made.digest}/manifest.json")
        assert manifest["LastModified"] == newest
        assert {o["Key"].removeprefix(f"built/{made.digest}/") for o in objects} == {
            *made.manifest["files"],
            "manifest.json",
        }
        capsys.readouterr()
        upload(run, made)
        assert "already" in capsys.readouterr().out

    def test_it_can_be_trained_on_by_its_manifest(self, tmp_path: Path, store: Any) -> None:
        run = self.run(tmp_path)
        made = ensure_dataset(run)
        upload(run, made)
        (tmp_path / "again").mkdir()
        shutil.copytree(tmp_path / "secrets", tmp_path / "again" / "secrets")
        source = {
            "manifest": {"storageUri": f"s3://versions/built/{made.digest}/manifest.json"},
            "secretRef": {"name": "store"},
        }
        again = ensure_dataset(context(tmp_path / "again", source))
        texts = lambda built: sorted(r["text"] for split in ("train", "eval", "test") for r, _ in built.records(split))  # noqa: E731
        assert texts(again) == texts(made)

    def test_a_bucket_that_is_not_there(self, tmp_path: Path, store: Any) -> None:
        run = self.run(tmp_path, "s3://nobody/built")
        with pytest.raises(
            UserError, match=r"spec.datasetUpload.storageUri s3://nobody/built/.*refuses to write \(HTTP 404\)"
        ):
            upload(run, ensure_dataset(run))
