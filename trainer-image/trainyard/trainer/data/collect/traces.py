"""Reasoning traces from a store with the HTTP API of tunix-rt, or from its database (`traces_database.py`).

With a dataset's name and version the store builds the dataset (filters, limit and selection are its own) and it is
exported as lines of JSON. Without, the store's list is read page by page and each trace asked for; filters and selection
are done here. Records are as they are served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from trainyard.api.run.collectors import TracesSource
from trainyard.trainer.data.collect import Record, Window, built_elsewhere
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.http import CONNECTIONS, Client
from trainyard.trainer.data.collect.journal import Journal, Piece
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say

BUILD = "/api/datasets/build"
LIST = "/api/traces"
PAGE = 100
"""Traces of one page; the store refuses more."""
BATCH = 50
FORMATS = {"Trace": "trace", "TrainingExample": "training_example", "TunixSFT": "tunix_sft"}


def collect(source: TracesSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """The records of the dataset in the store's order; or the traces of the list, newest first."""
    if source.database is not None:
        from trainyard.trainer.data.collect.traces_database import collect_rows

        yield from collect_rows(source, access, journal)
        return
    assert source.url is not None, "a rule of the spec"
    client = Client(source.url, access, field="traces.url")
    count = 0
    for record in _exported(source, client, journal) if source.dataset_name else _listed(source, client, journal):
        count += 1
        yield record
    say(f"{access.name}: {count} traces in {client.requests} requests, {journal.reused} pieces from before")


def _exported(source: TracesSource, client: Client, journal: Journal) -> Iterator[Record]:
    def build() -> Any:
        asked: dict[str, Any] = {
            "dataset_name": source.dataset_name,
            "dataset_version": source.dataset_version,
            "filters": source.filters,
            "limit": source.limit,
            "selection_strategy": source.selection_strategy.lower(),
        }
        if source.selection_strategy == "Random":
            asked["seed"] = source.seed
        return client.post(BUILD, asked)

    built = journal.fact("build", build)
    key, promised = built.get("dataset_key"), built.get("trace_count")
    if not isinstance(key, str):
        raise client.refuse(BUILD, f"the answer has no dataset_key: {str(built)[:200]}", hint="check traces.url")
    built_elsewhere.note(built, journal)
    say(f"{client.url}: dataset {key} has {promised} traces")
    path = f"/api/datasets/{quote(key, safe='')}/export.jsonl"

    def export() -> Iterator[Record]:
        number = 0
        for line in client.lines(path, {"format": FORMATS[source.export_format]}):
            if line.strip():
                number += 1
                yield _decoded(line, client, path, number)
        if source.export_format == "Trace" and isinstance(promised, int) and number != promised:
            raise client.refuse(
                path,
                f"{number} records where {promised} were built",
                hint="traces were deleted meanwhile; run it again",
            )

    yield from journal.records([Piece("export", export)])


def _decoded(line: bytes, client: Client, path: str, number: int) -> Record:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise client.refuse(path, f"line {number} is not JSON: {error}", hint="check the store") from error
    if not isinstance(value, dict):
        raise client.refuse(path, f"line {number} is no JSON object", hint="check the store")
    return value


def _listed(source: TracesSource, client: Client, journal: Journal) -> Iterator[Record]:
    ids = [str(hit["id"]) for hit in journal.records([Piece("list", lambda: _pages(source, client))])]
    if source.selection_strategy == "Random":
        ids.sort(key=lambda i: hashlib.sha256(f"{source.seed}/{i}".encode()).digest())
    if not source.filters:
        ids = ids[: source.limit]
    batches = (
        Piece(f"traces-{at:07d}", partial(_details, source, client, tuple(ids[at : at + BATCH])))
        for at in range(0, len(ids), BATCH)
    )
    for taken, record in enumerate(journal.records(batches, parallel=CONNECTIONS), start=1):
        yield record
        if taken == source.limit:
            return


def _pages(source: TracesSource, client: Client) -> Iterator[Record]:
    """Ids of all traces, or of as many as are wanted if they need not be looked at. New ones shift the pages: ids that come
    again are passed over."""
    seen: set[str] = set()
    offset: int | None = 0
    enough = source.limit if source.selection_strategy == "Latest" and not source.filters else None
    while offset is not None and (enough is None or len(seen) < enough):
        page = client.get(LIST, {"limit": PAGE, "offset": offset})
        try:
            ids, following = [str(hit["id"]) for hit in page["data"]], page["pagination"]["next_offset"]
        except (KeyError, TypeError) as error:
            raise client.refuse(
                LIST, f"the answer is no page of traces: {str(page)[:200]}", hint="check traces.url"
            ) from error
        if following is not None and following <= offset:
            raise invalid_data(
                f"{client.url}{LIST}: the page after {offset} begins at {following}", hint="check the store"
            )
        for found in ids:
            if found not in seen:
                seen.add(found)
                yield {"id": found}
        offset = following


def _details(source: TracesSource, client: Client, ids: tuple[str, ...]) -> Iterator[Record]:
    for trace_id in ids:
        answer = client.get(f"{LIST}/{quote(trace_id, safe='')}", missing_ok=True)
        if answer is None:
            continue
        meta = (answer.get("payload") or answer).get("meta") or {}
        if all(meta.get(key) == value for key, value in source.filters.items()):
            yield answer
