"""Tempo: a search for traces over the window, then each trace.

A search answers with at most so many traces and has no second page, so the window is cut: an hour whose answer is full is
searched again in halves, down to a second. Which traces are taken, if there are more than wanted, depends on their ids
alone. A trace that the server has thrown away between the search and the question is passed over and counted.

Spans come as OpenTelemetry writes them, with resources and scopes around them; here they become one flat list.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from trainyard.api.run.collectors import TempoSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.http import CONNECTIONS, Client, TooLarge
from trainyard.trainer.data.collect.journal import Journal, Piece
from trainyard.trainer.data.collect.secrets import redact
from trainyard.trainer.data.collect.windows import spans
from trainyard.trainer.log import say, warn

SEARCH = "/api/search"
TRACE = "/api/traces"
SEARCH_SECONDS = 3600
SEARCH_LIMIT = 500
"""Traces of one answer."""
BATCH = 50
"""Traces of one piece."""
TRACE_LIMIT = 4 * 2**20
"""Bytes; a larger trace is passed over."""
_HEX = re.compile(r"[0-9a-f]{16}([0-9a-f]{16})?")
_STATUS = {
    0: "unset",
    1: "ok",
    2: "error",
    "STATUS_CODE_UNSET": "unset",
    "STATUS_CODE_OK": "ok",
    "STATUS_CODE_ERROR": "error",
}


def collect(source: TempoSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """One record per trace, by the time of its start."""
    assert window is not None
    client = Client(source.url, access, field="tempo.url")
    searches = (
        Piece(f"search-{span.start}", partial(_search, client, source.query, span))
        for span in spans(window, SEARCH_SECONDS)
    )
    found = dict.fromkeys(str(hit["id"]) for hit in journal.records(searches, parallel=CONNECTIONS))
    chosen = list(found)
    if len(found) > source.max_traces:
        kept = set(sorted(found, key=lambda i: hashlib.sha256(i.encode()).digest())[: source.max_traces])
        chosen = [i for i in found if i in kept]
        say(f"{access.name}: {len(found)} traces found, {len(chosen)} of them taken (tempo.maxTraces)")
    batches = (
        Piece(f"traces-{at:07d}", partial(_traces, client, tuple(chosen[at : at + BATCH])))
        for at in range(0, len(chosen), BATCH)
    )
    count = 0
    for record in journal.records(batches, parallel=CONNECTIONS):
        count += 1
        yield record
    gone = f", {len(chosen) - count} gone or too large" if count < len(chosen) else ""
    say(f"{access.name}: {count} traces{gone} in {client.requests} requests, {journal.reused} pieces from before")
    if not count:
        warn(
            f"{access.name}: the query finds no traces in this window; check it, and how long the server keeps its data"
        )


def _search(client: Client, query: str, span: Window) -> Iterator[Record]:
    asked = {"q": query, "start": span.start, "end": span.end, "limit": SEARCH_LIMIT}
    hits = client.get(SEARCH, asked).get("traces") or []
    if len(hits) >= SEARCH_LIMIT and span.end - span.start > 1:
        middle = (span.start + span.end) // 2
        yield from _search(client, query, Window(span.start, middle))
        yield from _search(client, query, Window(middle, span.end))
        return
    if len(hits) >= SEARCH_LIMIT:
        warn(f"{client.url}: more than {SEARCH_LIMIT} traces in the second {span.start}; the rest of it is not seen")
    for hit in sorted(hits, key=lambda h: (int(h.get("startTimeUnixNano", 0)), h["traceID"])):
        yield {"id": hit["traceID"].rjust(32, "0")}


def _traces(client: Client, ids: tuple[str, ...]) -> Iterator[Record]:
    for trace_id in ids:
        try:
            answer = client.get(f"{TRACE}/{trace_id}", limit=TRACE_LIMIT, missing_ok=True)
        except TooLarge:
            continue
        if answer is not None and (spans_found := flatten(answer)):
            yield {"kind": "trace", "trace_id": trace_id, "spans": spans_found}


def flatten(answer: dict[str, Any]) -> list[Record]:
    """All spans of a trace, by start. Knows the forms of both versions of the API and of the years before."""
    inner = answer.get("trace", answer)
    found: list[Record] = []
    for resource in inner.get("resourceSpans") or inner.get("batches") or ():
        service = _attributes(resource.get("resource", {})).get("service.name", "")
        scopes = resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or ()
        found += [_span(span, str(service)) for scope in scopes for span in scope.get("spans", ())]
    return sorted(found, key=lambda s: (s["start_ns"], s["span_id"]))


def _span(span: dict[str, Any], service: str) -> Record:
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    return {
        "span_id": _hex(span.get("spanId", "")),
        "parent_id": _hex(span.get("parentSpanId", "")) or None,
        "name": span.get("name", ""),
        "service": service,
        "start_ns": start,
        "duration_ns": max(0, end - start),
        "status": _STATUS.get(span.get("status", {}).get("code", 0), "unset"),
        "attributes": _attributes(span),
    }


def _attributes(owner: dict[str, Any]) -> dict[str, Any]:
    return {a["key"]: _value(a.get("value", {})) for a in owner.get("attributes") or ()}


def _value(value: dict[str, Any]) -> Any:
    for kind, content in value.items():
        match kind:
            case "intValue":
                return int(content)
            case "arrayValue":
                return [_value(v) for v in content.get("values", ())]
            case "kvlistValue":
                return {v["key"]: _value(v.get("value", {})) for v in content.get("values", ())}
            case "stringValue":
                return redact(content)
            case _:
                return content
    return None


def _hex(text: str) -> str:
    """An id as hexadecimal digits; in JSON made from protobuf it is base64."""
    return text if not text or _HEX.fullmatch(text) else base64.b64decode(text).hex()
