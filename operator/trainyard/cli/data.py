"""Checking the records that a manifest names, as far as they lie on this machine.

The same code that the prepare step reads and checks records with, without anything that imports torch. What lies behind a
network is left to mode DryRun, which runs where the run would.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainyard.api.manifest import Fault
from trainyard.api.run.dataset import Dataset
from trainyard.cli.checking import FileReport, ObjectReport

FAULTS_LISTED = 20


@dataclass(frozen=True)
class DataReport:
    """What was found in one dataset; `records` is None where it was not looked at."""

    dataset: str
    records: int | None
    duplicates: int = 0
    faults: tuple[str, ...] = ()
    more: int = 0

    def __str__(self) -> str:
        if self.records is None:
            return f"dataset {self.dataset}: not on this machine; mode DryRun checks it in the cluster"
        remark = f", {self.duplicates} more than once" if self.duplicates else ""
        return f"dataset {self.dataset}: {self.records} records{remark}"


def with_data(report: FileReport, volumes: Mapping[str, Path], *, files: bool) -> FileReport:
    """The report with the faults of the records. Without `files` only what stands in the manifest itself is read."""
    return replace(report, objects=tuple(_object(one, volumes, files=files) for one in report.objects))


def _object(report: ObjectReport, volumes: Mapping[str, Path], *, files: bool) -> ObjectReport:
    if report.run_spec is None or not report.run_spec.datasets:
        return report
    faults, found = list(report.faults), []
    trained: set[int] = set()
    held_out: set[int] = set()
    for number, dataset in enumerate(report.run_spec.datasets):
        if dataset.inline is None and not files:
            continue
        one, hashes = _dataset(dataset, volumes)
        found.append(one)
        (trained if dataset.role == "Train" else held_out).update(hashes)
        line = report.document.line(("spec", "datasets", number, "name"))
        faults += [Fault(f"spec.datasets[{dataset.name}]", message, line) for message in one.faults]
        if one.more:
            faults.append(Fault(f"spec.datasets[{dataset.name}]", f"and {one.more} more", line))
    leaked = len(trained & held_out)
    remarks = [*report.remarks, *(str(one) for one in found if files)]
    if leaked:
        remarks.append(
            f"{leaked} records stand in a training dataset and in one that is held out: set deduplicate: Exact"
        )
    return replace(
        report,
        faults=tuple(faults),
        model=None if len(faults) > len(report.faults) else report.model,
        remarks=tuple(remarks),
    )


def _dataset(dataset: Dataset, volumes: Mapping[str, Path]) -> tuple[DataReport, set[int]]:
    from trainyard.trainer.data.formats import check
    from trainyard.trainer.data.row import Fault as RowFault
    from trainyard.trainer.data.row import Row
    from trainyard.trainer.data.select import passes, rename
    from trainyard.trainer.data.split import record_hash
    from trainyard.trainer.errors import UserError

    rows = _rows(dataset, volumes)
    if rows is None:
        return DataReport(dataset.name, None), set()
    count, seen, hashes = 0, 0, set()
    faults: list[str] = []
    try:
        for row in rows:
            if isinstance(row, Row) and not passes(row.value, dataset.filters):
                continue
            count += 1
            renamed = rename(row, dataset.columns) if isinstance(row, Row) else row
            checked = renamed
            if isinstance(renamed, Row) and dataset.generate is None:
                found = check(renamed, dataset.format)
                if isinstance(found, dict):
                    seen += 1
                    hashes.add(record_hash(json.dumps(found, sort_keys=True).encode("utf-8", "surrogatepass")))
                checked = found if isinstance(found, RowFault) else renamed
            if isinstance(checked, RowFault):
                faults.append(str(checked))
    except UserError as error:
        faults.append(str(error))
    return DataReport(
        dataset.name, count, seen - len(hashes), tuple(faults[:FAULTS_LISTED]), max(0, len(faults) - FAULTS_LISTED)
    ), hashes


def _rows(dataset: Dataset, volumes: Mapping[str, Path]) -> Iterable[object] | None:
    from trainyard.trainer.data.readers import read_inline_text
    from trainyard.trainer.data.row import Row

    place = f"dataset {dataset.name}"
    if dataset.inline is not None:
        if dataset.inline.text is not None:
            return read_inline_text(dataset.inline.text, place)
        return [Row(place, number, record) for number, record in enumerate(dataset.inline.records or (), start=1)]
    uri = dataset.storage_uri or ""
    claim = uri.removeprefix("pvc://").partition("/")[0]
    # A path of the image is not on this machine, and no fault.
    here = uri.startswith("file://") and any(p.exists() for p in list(Path(uri.removeprefix("file://")).parents)[:1])
    if not (here or (uri.startswith("pvc://") and claim in volumes)):
        return None
    return _file_rows(dataset, volumes)


def _file_rows(dataset: Dataset, volumes: Mapping[str, Path]) -> Iterator[object]:
    from trainyard.trainer.data.readers import read_rows
    from trainyard.trainer.data.sources import format_of, local_files

    uri = dataset.storage_uri or ""
    if uri.startswith("pvc://"):
        claim, _, path = uri.removeprefix("pvc://").partition("/")
        dataset = dataset.model_copy(update={"storage_uri": f"file://{volumes[claim].absolute()}/{path}"})
    for file in local_files(dataset, volumes=Path("/")):
        file_format = format_of(file, dataset.file_format)
        if file_format is not None:
            yield from read_rows(file, file_format)
