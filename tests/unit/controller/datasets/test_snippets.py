"""The lines of a trace store's guide for a shell, as they are printed there, with pods that are played."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.datasets_lines import BUILD, EXPORT, FIRST_BUILD
from tests.unit.controller.datasets.store import Store
from tests.unit.controller.datasets.test_contract import LINES, Pods


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store"), Pods()) as running:
        running.secret("tunix-rt-training-secrets", **{"database-url": "postgresql://x"})
        yield running


def test_a_first_small_dataset(store: Store) -> None:
    assert json.loads(store.curl(FIRST_BUILD).stdout)["dataset_key"] == "test-v1"


def test_a_dataset_for_production_and_its_export(store: Store, tmp_path: Path) -> None:
    answer = json.loads(store.curl(BUILD).stdout)
    assert {"dataset_key", "build_id", "trace_count", "manifest_path"} <= set(answer)
    done = store.curl(EXPORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "training/data/high_card_duel_prod_v1.jsonl").read_bytes() == b"".join(LINES)
