"""The third source system's way to a dataset, with its own lines: built from a real database, exported, told in the status."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.datasets_lines import BUILD, EXPORT
from tests.servers.postgresql import Postgres, postgresql
from tests.servers.test_traces_database import payload
from tests.unit.controller.datasets.store import SECRET, Store, process

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgresql() as server:
        filler = "x" * 500  # so that an export has many pieces
        rows = [
            (str(uuid.UUID(int=n)), f"2026-10-01T00:00:{n % 60:02}Z", payload(n, filler=filler)) for n in range(2200)
        ]
        server.insert(rows)
        yield server


@pytest.fixture(scope="module")
def store(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store"), process) as running:
        running.secret(SECRET, **{"database-url": database.url, "tunix-api-key": "k"})
        yield running


def test_built_and_exported_as_printed(store: Store, tmp_path: Path) -> None:
    built = json.loads(store.curl(BUILD).stdout)
    assert (built["dataset_key"], built["trace_count"]) == ("high_card_duel_prod-v1", 1000)
    run = store.run(built["run"].partition("/")[2])
    assert built["build_id"] == run["metadata"]["uid"]
    (source,) = run["status"]["dataset"]["sources"]
    assert (source["key"], source["buildId"], source["traceCount"], source["manifestPath"]) == (
        built["dataset_key"], built["build_id"], 1000, built["manifest_path"],
    )  # fmt: skip
    manifest = json.loads((store.folder / "claims" / built["manifest_path"]).read_text())
    assert manifest["datasets"][0]["built"]["trace_count"] == 1000

    done = store.curl(EXPORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "training/data/high_card_duel_prod_v1.jsonl").read_text().splitlines()
    assert len(lines) == 1000
    first = json.loads(lines[0])
    assert set(first) == {"prompt", "response", "metadata"}
    assert first["metadata"]["source"] == "ungar"
    assert len({json.loads(line)["metadata"]["source_trace_id"] for line in lines}) == 1000
    store.wait(lambda: not [n for _, n in store.kube.objects["jobs"] if "-lines-" in n])

    again = json.loads(store.curl(BUILD).stdout)
    assert again == built, "the same build is the same dataset"


def test_a_table_that_is_not_there_is_told_in_the_answer(store: Store, database: Postgres) -> None:
    store.secret(SECRET, **{"database-url": database.url.replace("/traces", "/postgres")})
    try:
        done = store.curl(BUILD.replace('"v1"', '"v2"').replace("curl -X", "curl -w '\\n%{http_code}' -X"))
    finally:
        store.secret(SECRET, **{"database-url": database.url})
    words, status = done.stdout.rsplit("\n", 1)
    assert status == "422"
    assert 'there is no such table: relation "traces" does not exist' in json.loads(words)["error"]


def test_a_dataset_that_is_damaged_is_no_export(store: Store, tmp_path: Path) -> None:
    build = BUILD.replace('"v1"', '"v3"').replace("1000", "10")
    built = json.loads(store.curl(build).stdout)
    (lines,) = (store.folder / "claims" / built["manifest_path"]).parent.glob("train/*.jsonl")
    lines.write_bytes(lines.read_bytes()[:-30])
    done = store.curl('curl -w "%{http_code}" "http://localhost:8000/api/datasets/high_card_duel_prod-v3/export.jsonl"')
    assert done.stdout.endswith("409"), done.stdout
    assert "traces.jsonl" in done.stdout
