"""Manifests of a trace store: read as the store writes them, counted, and told in the run's status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import context, records
from tests.unit.trainer.data.collect.test_collect_stores import Store
from tests.webserver import Reply, web
from trainyard.trainer.data.collect.run import built_of, collected
from trainyard.trainer.errors import UserError

URI = "pvc://sets/high_card_duel_prod-v1/manifest.json"
TOLD: dict[str, Any] = {
    "dataset_key": "high_card_duel_prod-v1",
    "build_id": "7b0e6d9c-9a52-4e07-8a3f-0d8e8e7c1f11",
    "dataset_name": "high_card_duel_prod",
    "dataset_version": "v1",
    "dataset_schema_version": "1.0",
    "created_at": "2025-12-21T12:00:00Z",
    "filters": {"source": "ungar"},
    "selection_strategy": "latest",
    "seed": None,
    "trace_ids": ["a", "b", "c"],
    "trace_count": 3,
    "stats": {"avg_step_count": 2.5},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "volumes" / "sets" / "high_card_duel_prod-v1"
    made.mkdir(parents=True)
    (made / "manifest.json").write_text(json.dumps(TOLD))
    return made


def formed(form: str) -> dict[str, str]:
    return {"format": form, **({} if form == "Text" else {"convertTo": "Text"})}


def export(place: Path, count: int) -> None:
    place.write_text("".join(json.dumps({"prompt": f"p{n}", "response": "r"}) + "\n" for n in range(count)))


@pytest.mark.parametrize("name", ["export.jsonl", "high_card_duel_prod-v1.jsonl", "high_card_duel_prod_v1.jsonl"])
def test_the_export_beside_it_is_found(tmp_path: Path, folder: Path, name: str) -> None:
    export(folder / name, 3)
    assert [r["prompt"] for r in records(tmp_path, manifest={"storageUri": URI})] == ["p0", "p1", "p2"]


def test_what_it_says_is_kept(tmp_path: Path, folder: Path) -> None:
    export(folder / "export.jsonl", 3)
    run = context(tmp_path, manifest={"storageUri": URI})
    list(collected(run.datasets[0], run))
    assert built_of(run.datasets[0], run) == {
        "key": TOLD["dataset_key"],
        "build_id": TOLD["build_id"],
        "trace_count": 3,
        "manifest_path": URI,
    }


def test_include_names_the_files(tmp_path: Path, folder: Path) -> None:
    export(folder / "export.jsonl", 1)
    export(folder / "a.jsonl", 1)
    export(folder / "b.jsonl", 2)
    found = records(tmp_path, manifest={"storageUri": URI, "include": ["a.jsonl", "b.jsonl"]})
    assert [r["prompt"] for r in found] == ["p0", "p0", "p1"]


@pytest.mark.parametrize("pattern", ["*.jsonl", "../a.jsonl", "/a.jsonl"])
def test_include_as_a_pattern(tmp_path: Path, folder: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"names no files that a pattern could choose.*for example export.jsonl"):
        records(tmp_path, manifest={"storageUri": URI, "include": [pattern]})


def test_no_export(tmp_path: Path, folder: Path) -> None:
    message = (
        r"does not lie beside it; looked for were export.jsonl, high_card_duel_prod-v1.jsonl, high_card_duel_prod_v1.jsonl"
        r".*/api/datasets/high_card_duel_prod-v1/export.jsonl"
    )
    with pytest.raises(UserError, match=message):
        records(tmp_path, manifest={"storageUri": URI})


@pytest.mark.parametrize(
    ("count", "form", "right"),
    [
        (2, "Text", False),
        (2, "TrainingExample", True),
        (4, "Text", False),
        (4, "TrainingExample", False),
        (3, "Text", True),
    ],
)
def test_the_count(tmp_path: Path, folder: Path, count: int, form: str, right: bool) -> None:
    export(folder / "export.jsonl", count)
    if right:
        assert len(records(tmp_path, manifest={"storageUri": URI}, **formed(form))) == count
        return
    with pytest.raises(UserError, match=f"trace_count is 3, and the export beside it has {count} records"):
        records(tmp_path, manifest={"storageUri": URI}, **formed(form))


def test_over_http(tmp_path: Path, folder: Path) -> None:
    export(folder / "high_card_duel_prod_v1.jsonl", 3)

    def reply(asked: Any) -> Reply:
        file = folder.parent / asked.path.lstrip("/")
        return Reply(file.read_bytes()) if file.is_file() else Reply(b"", 404)

    with web(reply) as server:
        uri = f"{server.url}/high_card_duel_prod-v1/manifest.json"
        assert len(records(tmp_path, manifest={"storageUri": uri})) == 3


def test_a_refusal_is_no_absence(tmp_path: Path, folder: Path) -> None:
    def reply(asked: Any) -> Reply:
        return Reply((folder / "manifest.json").read_bytes()) if asked.path.endswith(".json") else Reply(b"", 403)

    with web(reply) as server, pytest.raises(UserError, match=r"access is refused .HTTP 403"):
        records(tmp_path, manifest={"storageUri": f"{server.url}/manifest.json"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_key": "../up"}, "dataset_key: String should match"),
        ({"trace_count": 0}, "trace_count: Input should be greater than or equal to 1"),
        ({"trace_count": None}, "trace_count: Input should be a valid integer"),
    ],
)
def test_a_wrong_one(tmp_path: Path, folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "manifest.json").write_text(json.dumps(TOLD | change))
    with pytest.raises(UserError, match=message):
        records(tmp_path, manifest={"storageUri": URI})


def test_what_the_store_answers_to_a_build_is_kept(tmp_path: Path) -> None:
    with web(Store(5)) as server:
        run = context(tmp_path, traces={"url": server.url, "datasetName": "d", "datasetVersion": "v1"})
        list(collected(run.datasets[0], run))
    assert built_of(run.datasets[0], run) == {
        "key": "d-v1",
        "build_id": "b",
        "trace_count": 5,
        "manifest_path": "m",
    }


def test_the_list_of_a_store_is_no_building(tmp_path: Path) -> None:
    with web(Store(5)) as server:
        run = context(tmp_path, traces={"url": server.url})
        list(collected(run.datasets[0], run))
    assert built_of(run.datasets[0], run) is None


@pytest.mark.parametrize(("keys", "sent"), [({"tunix-api-key": "k"}, "k"), ({"tunix-api-key": "k", "token": "t"}, "t")])
def test_the_stores_own_name_of_its_key(tmp_path: Path, keys: dict[str, str], sent: str) -> None:
    secret = tmp_path / "secrets" / "tunix-rt-training-secrets"
    secret.mkdir(parents=True)
    for name, value in keys.items():
        (secret / name).write_text(value)
    with web(Store(2)) as server:
        records(tmp_path, traces={"url": server.url}, secretRef={"name": "tunix-rt-training-secrets"})
        assert {a.headers.get("Authorization") for a in server.asked} == {f"Bearer {sent}"}
