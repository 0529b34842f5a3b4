"""`expectedCount`, and what a store calls its dataset, from the prepare step to the record that the operator reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.unit.trainer.data.collect.collecting import context as collecting
from tests.unit.trainer.data.collect.test_collect_stores import Store
from tests.unit.trainer.data.test_select import context, inline
from tests.webserver import web
from trainyard.api.progress import DatasetRecord, DatasetSource, FinalRecord
from trainyard.api.run.dataset import Dataset
from trainyard.controller.runs.told import dataset as told_dataset
from trainyard.trainer.data.prepare import note_dataset
from trainyard.trainer.data.version import ensure_dataset
from trainyard.trainer.errors import UserError
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import Committed

TEXTS = [{"text": f"number {n}"} for n in range(6)]


def test_the_source_has_as_many_as_expected(tmp_path: Path) -> None:
    made = ensure_dataset(context(tmp_path, inline(*TEXTS, expectedCount=6, limit=2)))
    assert made.manifest["splits"]["train"]["records"] == 2, "it counts before limit"


def test_it_counts_before_filters(tmp_path: Path) -> None:
    filters = [{"field": "text", "operator": "In", "values": ["number 1"]}]
    made = ensure_dataset(context(tmp_path, inline(*TEXTS, expectedCount=6, filters=filters)))
    assert made.manifest["splits"]["train"]["records"] == 1


@pytest.mark.parametrize("expected", [5, 7])
def test_it_has_another_number(tmp_path: Path, expected: int) -> None:
    words = rf"spec.datasets\[d0\].expectedCount {expected}: inline has 6 records .*expectedCount: 6"
    with pytest.raises(UserError, match=words):
        ensure_dataset(context(tmp_path, inline(*TEXTS, expectedCount=expected)))


def test_grids_are_not_counted() -> None:
    puzzle = {"kind": "Sudoku"}
    with pytest.raises(ValidationError, match="expectedCount counts records"):
        Dataset.model_validate({"name": "d", "puzzle": puzzle, "expectedCount": 3})


def test_what_a_store_has_built_reaches_the_status(tmp_path: Path) -> None:
    with web(Store(5)) as server:
        traces = {"url": server.url, "datasetName": "d", "datasetVersion": "v1"}
        run = collecting(tmp_path, traces=traces, columns={"text": "form"}, expectedCount=5)
        run.work_dir.mkdir(exist_ok=True)
        made = ensure_dataset(run)
    reporter = Reporter("prepare", 1)
    note_dataset(Committed(made.folder, made.manifest, 0), reporter)
    record = reporter.final_record("Succeeded")
    read = FinalRecord.model_validate_json(record.fit(4096))
    assert read.dataset is not None
    (source,) = told_dataset(read.dataset).sources or ()
    assert source.model_dump(by_alias=True) == {
        "name": "d",
        "records": 5,
        "key": "d-v1",
        "buildId": "b",
        "traceCount": 5,
        "manifestPath": "m",
    }


def test_a_record_that_is_too_long_keeps_the_numbers() -> None:
    sources = [
        DatasetSource(name=f"d{n}", records=n, key="k" * 100, build_id="b" * 100, manifest_path="m" * 100)
        for n in range(32)
    ]
    record = FinalRecord(
        step="prepare", outcome="Succeeded", metrics={"loss": 1.0}, dataset=DatasetRecord(digest="x", sources=sources)
    )
    text = record.fit(4096)
    read = FinalRecord.model_validate_json(text)
    assert len(text) <= 4096
    assert read.metrics == {"loss": 1.0}
    assert read.dataset is not None
    assert [(s.name, s.records, s.key) for s in read.dataset.sources] == [(f"d{n}", n, None) for n in range(32)]
