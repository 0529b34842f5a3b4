"""Loki: each query over the window, in pieces of an hour, each piece page by page.

An answer holds at most so many lines, oldest first. The next page begins at the time of the last line, not after it,
because lines of the same nanosecond may still follow; the lines of that time are held back and taken from the next page,
which has all of them. So no line is lost and none comes twice. Lines of one time come in the order of their labels, since
the server promises none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from trainyard.api.run.collectors import LokiSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.http import CONNECTIONS, Client, TooLarge
from trainyard.trainer.data.collect.journal import Journal, Piece
from trainyard.trainer.data.collect.secrets import redact
from trainyard.trainer.data.collect.windows import spans
from trainyard.trainer.log import say, warn

RANGE = "/loki/api/v1/query_range"
PAGE_LIMIT = 24 * 2**20
"""Bytes of a page: lines are strings, which take little more memory than they have bytes."""
NANO = 1_000_000_000

Entry = tuple[int, str, str]
"""Time, labels as JSON, line."""


def collect(source: LokiSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """One record per line; by query, then by time."""
    assert window is not None
    client = Client(source.url, access, field="loki.url")

    def pieces() -> Iterator[Piece]:
        for index, query in enumerate(source.queries):
            for span in spans(window, source.span_minutes * 60):
                yield Piece(f"query-{index:02d}-{span.start}", partial(_lines, client, query, span, source.page_size))

    count = 0
    for record in journal.records(pieces(), parallel=CONNECTIONS):
        count += 1
        yield record
    say(f"{access.name}: {count} lines in {client.requests} requests, {journal.reused} pieces from before")
    if not count:
        warn(
            f"{access.name}: the queries have no lines in this window; check them, and how long the server keeps its data"
        )


def _lines(client: Client, query: str, span: Window, page_size: int) -> Iterator[Record]:
    start, end, size = span.start * NANO, span.end * NANO, page_size
    while start < end:
        asked = {"query": query, "start": start, "end": end, "limit": size, "direction": "forward"}
        try:
            page = _page(client, asked)
        except TooLarge as error:
            if size == 1:
                raise client.refuse(RANGE, f"one line is {error}", hint="leave such lines out by the query") from error
            size = max(1, size // 4)
            continue
        full = len(page) >= size
        last = page[-1][0] if page else end
        if full and page[0][0] == last:
            # Every line of a full page has the same time: only a larger page gets past it.
            if size >= 1_000_000:
                raise client.refuse(RANGE, f"more than {size} lines at one time, {last}", hint="select fewer streams")
            size *= 2
            continue
        for at, labels, line in page:
            if full and at == last:
                break
            yield {"kind": "log", "labels": json.loads(labels), "timestamp_ns": at, "line": redact(line)}
        if not full:
            return
        start, size = last, page_size


def _page(client: Client, asked: dict[str, object]) -> list[Entry]:
    found = client.get(RANGE, asked, limit=PAGE_LIMIT).get("data", {})
    if found.get("resultType") != "streams":
        raise client.refuse(
            RANGE,
            f"the query {asked['query']!r} gives numbers and not lines",
            hint="select lines, without count_over_time, rate and the like",
        )
    entries: list[Entry] = []
    for stream in found["result"]:
        labels = json.dumps(stream["stream"], sort_keys=True, ensure_ascii=False)
        entries += [(int(entry[0]), labels, entry[1]) for entry in stream["values"]]
    return sorted(entries)
