"""From a dataset of the manifest to its raw records: the right collector, its window, its journal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect import (
    Record,
    built_elsewhere,
    code,
    loki,
    manifest,
    prometheus,
    runbook,
    tempo,
    traces,
)
from trainyard.trainer.data.collect.access import read_access
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.data.collect.windows import window_of
from trainyard.trainer.data.records import notes_of_places

Collector = Callable[[Any, Any, Any, Journal], Iterator[Record]]

COLLECTORS: dict[str, Collector] = {
    "code": code.collect,
    "prometheus": prometheus.collect,
    "loki": loki.collect,
    "tempo": tempo.collect,
    "runbook": runbook.collect,
    "traces": traces.collect,
    "manifest": manifest.collect,
}
"""By the field of the dataset that holds the source."""


def source_of(dataset: Dataset) -> str | None:
    """The field that holds the dataset's source, if a collector reads it."""
    return next((name for name in COLLECTORS if getattr(dataset, name) is not None), None)


def built_of(dataset: Dataset, context: RunContext) -> dict[str, Any] | None:
    """What a dataset that a trace store has built is called there, once it has been read; None for all others. Of one that the
    run has built from the store's database by a name: the same, with the run in the store's place."""
    if dataset.traces is None and dataset.manifest is None:
        return None
    noted = built_elsewhere.noted(context.run_dir / "collected" / dataset.name)
    traces = dataset.traces
    if noted is None or traces is None or traces.database is None:
        return noted
    if traces.dataset_name is None:
        return None
    return {
        "key": f"{traces.dataset_name}-{traces.dataset_version}",
        "build_id": context.uid,
        **noted,
        "manifest_path": f"{context.run_dir.name}/dataset/manifest.json",
    }


def collected(dataset: Dataset, context: RunContext) -> Iterator[Record]:
    """The raw records of a dataset whose source has a collector.

    Raises:
        UserError: the source cannot be reached, refuses, or is not what the manifest says.
    """
    name = source_of(dataset)
    assert name is not None, f"dataset {dataset.name} has no collector"
    source = getattr(dataset, name)
    access = read_access(dataset, volumes=context.volumes_dir, secrets=context.secrets_dir)
    lookback = getattr(source, "window", None)
    window = window_of(lookback, moment(context)) if lookback is not None else None
    basis = {name: source.model_dump(mode="json"), "window": [window.start, window.end] if window else None}
    journal = Journal(context.run_dir / "collected" / dataset.name, basis)
    yield from COLLECTORS[name](source, access, window, journal)


def moment(context: RunContext) -> datetime:
    """The time at which the run looks back: what the operator says, or else the time of its first step, noted on the volume."""
    if context.moment is not None:
        return context.moment
    notes = Journal(context.run_dir / "collected" / ".run", context.uid)
    return datetime.fromisoformat(notes.fact("moment", lambda: datetime.now(UTC).isoformat(timespec="seconds")))


def forget(context: RunContext) -> None:
    """Free the journals' space; the prepared data has taken their place. A later phase may want them still. The notes of where
    records stood go in any case: what they were for has passed."""
    places = notes_of_places(context)
    if context.phase is not None and not context.is_last_phase:
        shutil.rmtree(places, ignore_errors=True)
        return
    shutil.rmtree(places.parent, ignore_errors=True)
    for dataset in context.datasets:
        shutil.rmtree(context.run_dir / "collected" / dataset.name, ignore_errors=True)
