"""From what was collected to problems with computed solutions.

A generator is a pure function from raw records to examples. Three rules hold for all of them:

* The problem holds everything that the answer follows from: the very numbers, lines, spans or source text. The answer is
  computed from what the problem shows (rounded numbers included), so anyone can check it without the source.
* The question says what is meant ("at least twice the others"), so that there is one right answer.
* In doubt there is no example. A value near a threshold, a tie, a line whose level is not sure: nothing is made of it.

docs/data/formats.md says of each task what it asserts and how the tests check it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trainyard.api.run.selection import CODE_TASKS, LOG_TASKS, RUNBOOK_TASKS, SERIES_TASKS, TASKS, TRACE_TASKS
from trainyard.trainer.data.readers import Row


def examples_of(rows: Iterable[Row], tasks: Sequence[str]) -> Iterator[Row]:
    """Examples of the named tasks (none: all) as TRM rows with a field `task`. Rows of an unknown kind give none.

    Lines of logs are looked at in batches and series in pairs, so a few hundred records are held at a time.
    """
    wanted = frozenset(tasks or TASKS)
    makers: dict[str, Any] = {}
    for row in rows:
        kind = str(row.value.get("kind"))
        if kind not in makers:
            makers[kind] = _maker(kind, wanted)
        maker = makers[kind]
        if maker is None:
            continue
        for example in maker.add(row.value):
            yield Row(row.source, row.line, example.to_record())
    for maker in makers.values():
        if maker is not None:
            for example in maker.end():
                yield Row(f"the last {maker.kind} records", 0, example.to_record())


def _maker(kind: str, wanted: frozenset[str]) -> Any:
    match kind:
        case "series" if wanted & set(SERIES_TASKS):
            from trainyard.trainer.data.generate.series import SeriesMaker

            return SeriesMaker(wanted)
        case "log" if wanted & set(LOG_TASKS):
            from trainyard.trainer.data.generate.logs import LogMaker

            return LogMaker(wanted)
        case "trace" if wanted & set(TRACE_TASKS):
            from trainyard.trainer.data.generate.traces import TraceMaker

            return TraceMaker(wanted)
        case "code" if wanted & set(CODE_TASKS):
            from trainyard.trainer.data.generate.code import CodeMaker

            return CodeMaker(wanted)
        case "runbook_entry" if wanted & set(RUNBOOK_TASKS):
            from trainyard.trainer.data.generate.runbook import RunbookMaker

            return RunbookMaker(wanted)
    return None
