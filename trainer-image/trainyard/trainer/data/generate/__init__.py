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
from trainyard.trainer.data.row import Fault, Row


def examples_of(rows: Iterable[Row], tasks: Sequence[str]) -> Iterator[Row | Fault]:
    """Examples of the named tasks (none: all) as TRM rows with a field `task`. Rows of an unknown kind give none, rows that
    say to be of a kind and have not its form are faults.

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
        yield from _rows(maker.add(row.value), kind, row.source, row.line)
    for kind, maker in makers.items():
        if maker is not None:
            yield from _rows(maker.end(), kind, f"the last {kind} records", 0)


_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, OSError, RecursionError)
"""What a maker may raise about a record that somebody else has written: it reads the form that collectors give."""


def _rows(examples: Iterator[Any], kind: str, source: str, line: int) -> Iterator[Row | Fault]:
    try:
        for example in examples:
            yield Row(source, line, example.to_record())
    except _ODD as error:
        told = f"{type(error).__name__}: {str(error)[:100]}"
        yield Fault(f"{source}:{line}", f"is no record of kind {kind} as collectors write it ({told})")


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
