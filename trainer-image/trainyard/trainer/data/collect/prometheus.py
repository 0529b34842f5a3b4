"""Prometheus: each query over the window, span by span.

The server refuses an answer with more than 11,000 points a series, so a span is a question of its own; it is also one
record per series, so that records have a length that does not depend on the window. A span with so many series that the
answer passes the bound of memory is asked for in halves, and each half gives records of its own.

Points that are no numbers (NaN, Inf) are left out: JSON has no word for them, and a gap says the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from trainyard.api.run.collectors import PrometheusSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.http import CONNECTIONS, Client, TooLarge
from trainyard.trainer.data.collect.journal import Journal, Piece
from trainyard.trainer.data.collect.windows import align, spans
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say, warn

RANGE = "/api/v1/query_range"
METADATA = "/api/v1/metadata"
METADATA_LIMIT = 32 * 2**20


def collect(source: PrometheusSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """One record per query, span and series, in this order; series by their labels."""
    assert window is not None
    client = Client(source.url, access, field="prometheus.url")
    known: dict[str, Any] = {}
    if source.metadata:
        known = journal.fact("metadata", lambda: _metadata(client))

    def pieces() -> Iterator[Piece]:
        for index, query in enumerate(source.queries):
            for span in spans(align(window, source.step_seconds), source.span_hours * 3600):
                yield Piece(
                    f"query-{index:02d}-{span.start}",
                    partial(_series, client, query, span, source.step_seconds),
                )

    points = 0
    for record in journal.records(pieces(), parallel=CONNECTIONS):
        points += len(record["values"])
        name = record["metric"].get("__name__")
        if name in known:
            record["metadata"] = known[name]
        yield record
    say(f"{access.name}: {points} points in {client.requests} requests, {journal.reused} pieces from before")
    if not points:
        warn(
            f"{access.name}: the queries have no data in this window; check them, and how long the server keeps its data"
        )


def _series(client: Client, query: str, span: Window, step: int) -> Iterator[Record]:
    asked = {"query": query, "start": span.start, "end": span.end - step, "step": step}
    try:
        answer = client.post_form(RANGE, asked)
    except TooLarge as error:
        if span.end - span.start < 2 * step:
            raise invalid_data(
                f"{client.url}: the query {query!r} has too many series: one point of each is {error}",
                hint="select fewer series, or aggregate them (sum by (...))",
            ) from error
        middle = span.start + (span.end - span.start) // 2 // step * step
        yield from _series(client, query, Window(span.start, middle), step)
        yield from _series(client, query, Window(middle, span.end), step)
        return
    found = answer.get("data", {})
    if found.get("resultType") != "matrix":
        raise client.refuse(RANGE, f"the answer has no series: {str(answer)[:200]}", hint="check prometheus.url")
    for series in sorted(found["result"], key=lambda s: sorted(s["metric"].items())):
        values = [[at, number] for at, text in series.pop("values") if math.isfinite(number := float(text))]
        if values:
            yield {"kind": "series", "query": query, "metric": series["metric"], "values": values, "step": step}


def _metadata(client: Client) -> dict[str, Any]:
    """Type, help and unit by metric. Targets may disagree about a metric; the first entry in order is taken."""
    answer = client.get(METADATA, limit=METADATA_LIMIT)
    entries = {
        name: min(({k: e.get(k, "") for k in ("type", "help", "unit")} for e in given), key=lambda e: sorted(e.items()))
        for name, given in answer.get("data", {}).items()
        if given
    }
    return dict(sorted(entries.items()))
