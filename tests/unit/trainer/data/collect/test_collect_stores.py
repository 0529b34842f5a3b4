"""Trace stores with their pages and exports, and ready-built datasets with a manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import begin_anew, records
from tests.webserver import Asked, Reply, web
from trainyard.trainer.data.collect import http
from trainyard.trainer.errors import UserError
from trainyard.trainer.volume.commit import commit_folder


class Store:
    """Traces t0 (oldest) to tN, some of them from ungar, as tunix-rt keeps them."""

    def __init__(self, count: int) -> None:
        self.traces = {
            f"t{n}": {"id": f"t{n}", "payload": {"prompt": f"p{n}", "meta": {"source": "ungar" if n % 2 else "web"}}}
            for n in range(count)
        }
        self.built: dict[str, Any] = {}
        self.short_by = 0

    def __call__(self, asked: Asked) -> Reply:
        ids = list(reversed(self.traces))
        match asked.method, asked.path.split("/")[2:]:
            case "GET", ["traces"]:
                limit, offset = int(asked.query["limit"]), int(asked.query["offset"])
                if limit > 100:
                    return Reply({"detail": "limit must be between 1 and 100"}, 422)
                following = offset + limit if offset + limit < len(ids) else None
                page = [{"id": i, "created_at": "x"} for i in ids[offset : offset + limit]]
                return Reply({"data": page, "pagination": {"limit": limit, "offset": offset, "next_offset": following}})
            case "GET", ["traces", wanted]:
                return (
                    Reply(self.traces[wanted]) if wanted in self.traces else Reply({"detail": "Trace not found"}, 404)
                )
            case "POST", ["datasets", "build"]:
                self.built = json.loads(asked.body)
                if self.built["selection_strategy"] == "random" and "seed" not in self.built:
                    return Reply({"detail": "seed is required"}, 422)
                key = f"{self.built['dataset_name']}-{self.built['dataset_version']}"
                return Reply(
                    {"dataset_key": key, "build_id": "b", "trace_count": self.chosen(), "manifest_path": "m"}, 201
                )
            case "GET", ["datasets", "d-v1", "export.jsonl"]:
                form = asked.query["format"]
                lines = [json.dumps({"form": form, "n": n}) for n in range(self.chosen() - self.short_by)]
                return Reply("".join(line + "\n" for line in lines).encode())
        return Reply({"detail": "Not Found"}, 404)

    def chosen(self) -> int:
        matching = [
            t
            for t in self.traces.values()
            if all(t["payload"]["meta"].get(k) == v for k, v in self.built["filters"].items())
        ]  # type: ignore[index]
        return min(len(matching), self.built["limit"])


BUILT = {"datasetName": "d", "datasetVersion": "v1"}


def test_all_pages_of_the_list(tmp_path: Path) -> None:
    with web(Store(250)) as server:
        found = records(tmp_path, traces={"url": server.url})
        pages = [a.query["offset"] for a in server.asked if a.path == "/api/traces"]
    assert [r["id"] for r in found] == [f"t{n}" for n in reversed(range(250))]
    assert found[0]["payload"]["prompt"] == "p249"
    assert pages == ["0", "100", "200"]


def test_filters_limit_and_strategy(tmp_path: Path) -> None:
    with web(Store(250)) as server:
        newest = records(tmp_path, traces={"url": server.url, "limit": 30, "filters": {"source": "ungar"}})
        begin_anew(tmp_path)
        chance = records(tmp_path, traces={"url": server.url, "limit": 30, "selectionStrategy": "Random", "seed": 1})
        begin_anew(tmp_path)
        again = records(tmp_path, traces={"url": server.url, "limit": 30, "selectionStrategy": "Random", "seed": 1})
        begin_anew(tmp_path)
        other = records(tmp_path, traces={"url": server.url, "limit": 30, "selectionStrategy": "Random", "seed": 2})
    assert [r["id"] for r in newest] == [f"t{n}" for n in range(249, 189, -2)]
    assert chance == again != other
    assert len({r["id"] for r in chance}) == 30


@pytest.mark.parametrize(
    ("form", "word"), [("Trace", "trace"), ("TrainingExample", "training_example"), ("TunixSFT", "tunix_sft")]
)
def test_a_dataset_that_the_store_builds(tmp_path: Path, form: str, word: str) -> None:
    store = Store(100)
    with web(store) as server:
        found = records(
            tmp_path,
            traces={"url": server.url, **BUILT, "exportFormat": form, "filters": {"source": "ungar"}, "limit": 20},
        )
        before = len(server.asked)
        assert (
            records(
                tmp_path,
                traces={"url": server.url, **BUILT, "exportFormat": form, "filters": {"source": "ungar"}, "limit": 20},
            )
            == found
        )
        assert len(server.asked) == before
    assert found == [{"form": word, "n": n} for n in range(20)]
    assert store.built == {
        "dataset_name": "d",
        "dataset_version": "v1",
        "filters": {"source": "ungar"},
        "limit": 20,
        "selection_strategy": "latest",
    }


def test_an_export_that_lacks_records(tmp_path: Path) -> None:
    store = Store(10)
    store.short_by = 3
    with web(store) as server, pytest.raises(UserError, match="7 records where 10 were built"):
        records(tmp_path, traces={"url": server.url, **BUILT})


def test_the_stores_own_words(tmp_path: Path) -> None:
    words = r"traces.url .*/api/datasets/build: .*\(HTTP 422\): Dataset name is taken"
    taken = Reply({"detail": "Dataset name is taken"}, 422)
    with web(lambda _: taken) as server, pytest.raises(UserError, match=words):
        records(tmp_path, traces={"url": server.url, **BUILT})


def test_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSES", ())
    with (
        web(lambda _: Reply({"hello": "world"})) as server,
        pytest.raises(UserError, match="the answer is no page of traces"),
    ):
        records(tmp_path, traces={"url": server.url})


class TestManifest:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        def write(folder: Path) -> dict[str, Any]:
            (folder / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
            (folder / "eval.jsonl").write_text('{"text": "c"}\n')
            (folder / "card.md").write_text("about\n")
            return {"digest": "x"}

        return commit_folder(tmp_path / "volumes" / "sets" / "v1", write).path

    def test_its_files_are_read_in_order(self, tmp_path: Path, dataset: Path) -> None:
        uri = "pvc://sets/v1/manifest.json"
        assert [r["text"] for r in records(tmp_path, manifest={"storageUri": uri})] == ["c", "a", "b"]
        begin_anew(tmp_path)
        assert [r["text"] for r in records(tmp_path, manifest={"storageUri": uri, "include": ["train*"]})] == ["a", "b"]

    def test_the_splits_of_a_dataset_version(self, tmp_path: Path) -> None:
        def write(folder: Path) -> dict[str, Any]:
            for split in ("train", "eval"):
                (folder / split).mkdir()
                (folder / split / "d.jsonl").write_text(json.dumps({"text": split}) + "\n")
            return {}

        commit_folder(tmp_path / "volumes" / "sets" / "v2", write)
        uri = "pvc://sets/v2/manifest.json"
        found = records(tmp_path, manifest={"storageUri": uri, "include": ["train/*"]})
        assert found == [{"text": "train"}]

    def test_over_http(self, tmp_path: Path, dataset: Path) -> None:
        with web(lambda asked: Reply((dataset.parent / asked.path.lstrip("/")).read_bytes())) as server:
            found = records(tmp_path, manifest={"storageUri": f"{server.url}/v1/manifest.json?X-Sig=1"})
            assert {a.query.get("X-Sig") for a in server.asked} == {"1"}
        assert len(found) == 3

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"text": "a"}\n{"text": "B"}\n', "SHA-256 is"),
            ('{"text": "a"}\n', "has 14 bytes where the manifest says 28"),
        ],
    )
    def test_a_changed_file(self, tmp_path: Path, dataset: Path, content: str, message: str) -> None:
        (dataset / "train.jsonl").write_text(content)
        with pytest.raises(UserError, match=message) as caught:
            records(tmp_path, manifest={"storageUri": "pvc://sets/v1/manifest.json"})
        assert "pvc://sets/v1/train.jsonl" in caught.value.message

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "is not JSON"),
            ("{}", "version: Field required; files: Field required"),
            ('{"version": 1, "files": {"a": {"size": "x", "sha256": "y"}}}', "files.a.size: .*files.a.sha256: "),
            ('{"version": 2, "files": {}}', "version: Input should be less than or equal to 1"),
            (
                json.dumps({"version": 1, "files": {"../a": {"size": 1, "sha256": hashlib.sha256(b"").hexdigest()}}}),
                r"files.../a leads out of the manifest's folder",
            ),
            (
                json.dumps({"version": 1, "files": {"a.md": {"size": 1, "sha256": hashlib.sha256(b"").hexdigest()}}}),
                "no file of the manifest can be read",
            ),
        ],
    )
    def test_a_wrong_manifest(self, tmp_path: Path, dataset: Path, text: str, message: str) -> None:
        (dataset / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=message):
            records(tmp_path, manifest={"storageUri": "pvc://sets/v1/manifest.json"})
