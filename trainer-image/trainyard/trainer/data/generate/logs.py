"""Examples from log lines: grouping by template, a burst of errors, the first error.

Lines of one stream (equal labels) are gathered into batches of 16. A line's level is known only where the line says it in
one of a few ways; a batch with a line that merely speaks of errors makes no example about errors.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from trainyard.trainer.data.generate.example import Example, by_content, clock, rfc3339

BATCH = 16
STREAMS = 256
"""Streams that are gathered at once; of a further one the oldest is let go."""
LONGEST_LINE = 240
WILDCARD = "<*>"
_LEVEL = re.compile(
    r"""(?:\blevel=|"level":\s*")"?(\w+)|^([EFWID])\d{4} |\b(ERROR|FATAL|CRITICAL|PANIC|WARN|WARNING|INFO|DEBUG)\b"""
)
_BAD = {"error", "err", "fatal", "critical", "crit", "panic", "alert", "emerg", "e", "f"}
_FINE = {"warn", "warning", "info", "debug", "trace", "notice", "w", "i", "d"}
_SPEAKS_OF = re.compile(r"error|fail|fatal|panic|exception|critical", re.I)

Line = tuple[float, str]


class LogMaker:
    """Gathers lines by stream."""

    kind = "log"

    def __init__(self, tasks: frozenset[str]) -> None:
        self._tasks = tasks
        self._streams: OrderedDict[str, list[Line]] = OrderedDict()

    def add(self, record: dict[str, Any]) -> Iterator[Example]:
        """Examples from the batch that this line completes."""
        line = str(record.get("line", "")).strip()
        stamp = record.get("timestamp_ns")
        if not line or len(line) > LONGEST_LINE or "\n" in line or not isinstance(stamp, int | str):
            return
        labels = record.get("labels") or {}
        stream = ", ".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        batch = self._streams.setdefault(stream, [])
        batch.append((int(stamp) / 1e9, line))
        self._streams.move_to_end(stream)
        if len(batch) >= BATCH:
            yield from self._batch(stream, self._streams.pop(stream))
        elif len(self._streams) > STREAMS:
            self._streams.popitem(last=False)

    def end(self) -> Iterator[Example]:
        """Batches that were not filled, if they have enough lines."""
        for stream, batch in self._streams.items():
            if len(batch) >= BATCH // 2:
                yield from self._batch(stream, batch)

    def _batch(self, stream: str, lines: list[Line]) -> Iterator[Example]:
        lines = sorted(lines)
        judges = {"LogTemplates": templates, "LogErrorBurst": error_burst, "LogFirstCause": first_cause}
        for task, judge in judges.items():
            if task in self._tasks and (made := judge(lines)) is not None:
                problem, solution, steps = made
                end = rfc3339(lines[-1][0])
                named = f"Log of {{{stream}}}, times in UTC.\n{problem}"
                yield Example(task, named, solution, steps, "loki", f"{{{stream}}}", "log_analysis", end)


def template(line: str) -> str:
    """The line with <*> for every word that has a digit in it."""
    return " ".join(WILDCARD if any(c.isdigit() for c in word) else word for word in line.split())


def is_error(line: str) -> bool | None:
    """Whether the line reports an error; None where it does not say its level but speaks of failure."""
    found = {next(g for g in match.groups() if g).lower() for match in _LEVEL.finditer(line)}
    if found & _BAD and not found & _FINE:
        return True
    if found & _FINE and not found & _BAD:
        return False
    return None if found or _SPEAKS_OF.search(line) else False


def templates(lines: list[Line]) -> tuple[str, str, tuple[str, ...]] | None:
    """Group lines that differ only in words with digits."""
    counts = Counter(template(line) for _, line in lines)
    if not 2 <= len(counts) <= 6 or len(counts) > len(lines) // 2:
        return None
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listing = "\n".join(line for _, line in lines)
    problem = (
        f"{listing}\nGroup these lines by template: put {WILDCARD} for every word that has a digit in it. Give each template "
        "with its count, the most frequent first, equal counts in alphabetical order."
    )
    solution = "\n".join(f"{count} {found}" for found, count in ranked)
    steps = (
        f"There are {len(lines)} lines.",
        f"With words that have digits replaced, {len(ranked)} different lines are left.",
        f"The counts {' + '.join(str(c) for _, c in ranked)} make {len(lines)}.",
    )
    return problem, solution, steps


def error_burst(lines: list[Line]) -> tuple[str, str, tuple[str, ...]] | None:
    """A minute with at least four errors, where no other has more than one."""
    levels = [is_error(line) for _, line in lines]
    if None in levels:
        return None
    minutes = Counter(clock(moment)[:16] for (moment, _), bad in zip(lines, levels, strict=True) if bad)
    ranked = minutes.most_common()
    listing = "\n".join(f"{clock(moment)} {line}" for moment, line in lines)
    problem = (
        f"{listing}\nIs there a burst of errors: a minute with at least four error lines, while no other minute has more than "
        "one? If so, which minute, and how many?"
    )
    total = sum(minutes.values())
    if not total:
        return problem, "no burst: no line is an error", (f"None of the {len(lines)} lines has an error level.",)
    if ranked[0][1] < 4:
        if ranked[0][1] > 1:
            return None
        return problem, "no burst", (f"{total} lines are errors, each in a minute of its own.",)
    if len(ranked) > 1 and ranked[1][1] > 1:
        return None
    minute, count = ranked[0]
    steps = (
        f"{total} of {len(lines)} lines are errors.",
        f"{count} of them are in the minute {minute}.",
        "No other minute has more than one.",
    )
    return problem, f"yes: {minute}, {count} errors", steps


def first_cause(lines: list[Line]) -> tuple[str, str, tuple[str, ...]] | None:
    """The earliest of several errors. That it came first is all that is asserted."""
    levels = [is_error(line) for _, line in lines]
    if None in levels:
        return None
    errors = [entry for entry, bad in zip(lines, levels, strict=True) if bad]
    # Shown to the second, so two in the same second would have no order.
    if len(errors) < 2 or clock(errors[0][0]) == clock(errors[1][0]):
        return None
    shuffled = by_content([f"{clock(moment)} {line}" for moment, line in lines], "order")
    listing = "\n".join(shuffled)
    problem = f"{listing}\nThe lines are out of order. Which error came first, and how many error lines followed it?"
    steps = (
        f"{len(errors)} of {len(lines)} lines are errors.",
        f"The earliest is of {clock(errors[0][0])}, the next of {clock(errors[1][0])}.",
    )
    return problem, f"{clock(errors[0][0])} {errors[0][1]}\n{len(errors) - 1} followed", steps
