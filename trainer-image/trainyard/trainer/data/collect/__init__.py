"""Collectors: from a system that people run (a repository, Prometheus, Loki, Tempo, a trace store) to raw records.

A collector is a function

    collect(source, access, window, journal) -> Iterator[Record]

`source` is the API model of `operator/trainyard/api/collectors.py`. A record is a plain JSON object and says what is there,
without a view on what to learn from it; generators and formats come after. By kind:

    code           {kind: "code", path, language, text, repository, commit}
    series         {kind: "series", query, metric: {label: value}, values: [[unix seconds, number], ...], step, metadata?}
    log            {kind: "log", labels: {label: value}, timestamp_ns, line}
    trace          {kind: "trace", trace_id, spans: [{span_id, parent_id, name, service, start_ns, duration_ns, status,
                    attributes}]}
    runbook_entry  {kind: "runbook_entry", title, symptom, diagnosis, commands: [...], path}

Records of `traces` and `manifest` are as they are served. Two rules hold for all of them. What was fetched is never
fetched again: each piece goes into the journal on the run's volume, and after a kill the next attempt begins with the
first piece that is missing. And the same manifest gives the same records: windows end at the run's own time, pieces are
put out in the order in which they were planned, whatever order they arrived in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """From when to when, in whole unix seconds; `start` belongs to it, `end` does not."""

    start: int
    end: int
