"""Reasoning traces out of the table in which a trace store keeps them.

Filters, order and limit are the database's: one statement, one snapshot. The whole answer is one piece of the journal,
because a piece that another attempt fetches would be of another snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from trainyard.api.run.collectors import TracesSource
from trainyard.trainer.data.collect import Record, built_elsewhere
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.journal import Journal, Piece
from trainyard.trainer.data.collect.postgres import Database, Place, address_of
from trainyard.trainer.data.collect.trace_forms import Trace, written
from trainyard.trainer.data.sources import read_secret
from trainyard.trainer.log import say


def look(source: TracesSource, access: Access) -> str:
    """Whether a row could be read, asked once; where the database is. Raises UserError."""
    database, statement, values = _opened(source, access, patient=False)
    try:
        next(database.rows(f"SELECT * FROM ({statement}) AS chosen LIMIT 1", **values), None)
        return str(database.address)
    finally:
        database.close()


def collect_rows(source: TracesSource, access: Access, journal: Journal) -> Iterator[Record]:
    """The chosen traces in the form of exportFormat, newest first or in the order of chance."""

    def fetch() -> Iterator[Record]:
        database, statement, values = _opened(source, access)
        try:
            for trace_id, moment, payload in database.rows(statement, **values):
                yield written(Trace.of(str(trace_id), moment, payload), source.export_format)
        finally:
            database.close()

    count = 0
    for record in journal.records([Piece("rows", fetch)]):
        count += 1
        yield record
    built_elsewhere.note({"trace_count": count}, journal)
    say(f"{access.name}: {count} traces of the database")


def _opened(source: TracesSource, access: Access, *, patient: bool = True) -> tuple[Database, str, dict[str, Any]]:
    """The database, with the statement and its values."""
    place = Place(access.name, "traces.database")
    address = address_of(read_secret(access.dataset, access.secrets), place)
    return Database(address, place, ca=access.ca, patient=patient), *_asked(source)


def _asked(source: TracesSource) -> tuple[str, dict[str, Any]]:
    """The statement, and the values of its `:names`. Identifiers are quoted; their pattern has no quote in it."""
    table = source.database
    assert table is not None
    where = " AND ".join(
        f"(\"{table.payload_column}\"::jsonb -> 'meta' -> :key{n}) = (:value{n})::jsonb"
        for n in range(len(source.filters))
    )
    values: dict[str, Any] = {}
    for n, (key, value) in enumerate(source.filters.items()):
        values |= {f"key{n}": key, f"value{n}": json.dumps(value)}
    order = f'"{table.time_column}" DESC, "{table.id_column}"'
    if source.selection_strategy == "Random":
        order = f'md5(:seed || "{table.id_column}"::text), "{table.id_column}"'
        values["seed"] = f"{source.seed}/"
    quoted = ".".join(f'"{part}"' for part in table.table.split("."))
    return (
        f'SELECT "{table.id_column}"::text, "{table.time_column}", "{table.payload_column}"::jsonb FROM {quoted} '
        f"{f'WHERE {where} ' if where else ''}ORDER BY {order} LIMIT {source.limit}"
    ), values
