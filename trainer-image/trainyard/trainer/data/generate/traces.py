"""Examples from traces: the critical path, the slowest span, where an error began.

A trace is used only if it is a proper tree: one root, every parent present, every span inside its parent. Others (lost
spans, work that goes on after its caller) have no clear answer. Times are shown in milliseconds after the start, and the
answers are computed from the shown numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.data.generate.example import Example, rfc3339

MOST_SPANS = 24
FEWEST_SPANS = 3


@dataclass(frozen=True)
class Span:
    """As it is shown: numbered in the order of starts, milliseconds with one digit."""

    number: int
    name: str
    parent: int | None
    start: float
    end: float
    failed: bool

    @property
    def duration(self) -> float:
        """Milliseconds."""
        return round(self.end - self.start, 1)


class TraceMaker:
    """Traces one by one."""

    kind = "trace"

    def __init__(self, tasks: frozenset[str]) -> None:
        self._tasks = tasks

    def add(self, record: dict[str, Any]) -> Iterator[Example]:
        """Examples from one trace."""
        spans = tree(record.get("spans"))
        if spans is None:
            return
        judges = {"TraceCriticalPath": critical_path, "TraceSlowestSpan": slowest_span, "TraceErrorSpan": error_span}
        begun = min(int(s["start_ns"]) for s in record["spans"]) / 1e9
        for task, judge in judges.items():
            if task in self._tasks and (made := judge(spans)) is not None:
                question, solution, steps = made
                problem = f"Trace, times in milliseconds after its start:\n{listing(spans)}\n{question}"
                query = str(record.get("trace_id", ""))
                yield Example(task, problem, solution, steps, "tempo", query, "trace_analysis", rfc3339(begun))

    def end(self) -> Iterator[Example]:
        """Nothing is held back."""
        return iter(())


def tree(raw: Any) -> list[Span] | None:
    """The spans in the order of their starts, the root first; None if they are no proper tree."""
    if not isinstance(raw, list) or not FEWEST_SPANS <= len(raw) <= MOST_SPANS:
        return None
    try:
        ordered = sorted(raw, key=lambda s: (int(s["start_ns"]), -int(s["duration_ns"]), str(s["span_id"])))
        begun = int(ordered[0]["start_ns"])
        numbers = {str(s["span_id"]): n for n, s in enumerate(ordered, start=1)}
        spans = []
        for n, s in enumerate(ordered, start=1):
            parent = str(s.get("parent_id") or "")
            start = (int(s["start_ns"]) - begun) / 1e6
            name = " ".join(part for part in (str(s.get("service") or ""), str(s.get("name") or "")) if part)
            if parent and parent not in numbers:
                return None
            spans.append(
                Span(
                    n,
                    name,
                    numbers[parent] if parent else None,
                    round(start, 1),
                    round(start + int(s["duration_ns"]) / 1e6, 1),
                    _failed(s.get("status")),
                )
            )
    except (KeyError, TypeError, ValueError):
        return None
    if len(numbers) != len(spans) or [s.number for s in spans if s.parent is None] != [1]:
        return None
    for span in spans:
        above = spans[span.parent - 1] if span.parent else None
        if not span.name or (
            above and (span.start < above.start or span.end > above.end or above.number >= span.number)
        ):
            return None
    return spans


def listing(spans: list[Span]) -> str:
    """One line a span."""
    return "\n".join(
        f"{s.number}. {s.name}, {'root' if s.parent is None else f'child of {s.parent}'}, {s.start:.1f} to {s.end:.1f}"
        f"{', error' if s.failed else ''}"
        for s in spans
    )


def _failed(status: Any) -> bool:
    return status == 2 or "error" in str(status).lower()


def critical_path(spans: list[Span]) -> tuple[str, str, tuple[str, ...]] | None:
    """From the root to the child that ends last, and so on."""
    path, steps = [spans[0]], []
    while children := [s for s in spans if s.parent == path[-1].number]:
        ranked = sorted(children, key=lambda s: s.end, reverse=True)
        if len(ranked) > 1 and ranked[0].end - ranked[1].end < 0.2:
            return None
        steps.append(f"Of the children of {path[-1].number}, {ranked[0].number} ends last, at {ranked[0].end:.1f}.")
        path.append(ranked[0])
    if len(path) < 3 or len(path) == len(spans):
        return None
    question = (
        "Follow the critical path: from the root go to the child that ends last, from there again, until there is none. Which "
        "spans are on it?"
    )
    steps.append(f"{path[-1].number} has no children.")
    return question, " > ".join(f"{s.number} {s.name}" for s in path), tuple(steps)


def slowest_span(spans: list[Span]) -> tuple[str, str, tuple[str, ...]] | None:
    """The longest among those without children: work that nothing below explains."""
    parents = {s.parent for s in spans}
    leaves = sorted((s for s in spans if s.number not in parents), key=lambda s: s.duration, reverse=True)
    if len(leaves) < 2 or leaves[0].duration < 1.1 * leaves[1].duration or leaves[0].duration < 1.0:
        return None
    first, second = leaves[0], leaves[1]
    question = "Which span without children took longest, and how long?"
    steps = (
        f"Spans without children: {', '.join(str(s.number) for s in sorted(leaves, key=lambda s: s.number))}.",
        f"{first.number} took {first.end:.1f} - {first.start:.1f} = {first.duration:.1f} ms.",
        f"The next, {second.number}, took {second.duration:.1f} ms.",
    )
    return question, f"{first.number} {first.name}, {first.duration:.1f} ms", steps


def error_span(spans: list[Span]) -> tuple[str, str, tuple[str, ...]] | None:
    """The failed span below which nothing failed."""
    failed = {s.number for s in spans if s.failed}
    question = (
        "Where did the error begin: which span failed while none below it did? Say also which spans above it failed with it, from "
        "the nearest to the root."
    )
    if not failed:
        return question, "no span failed", (f"None of the {len(spans)} spans is marked as error.",)
    origins = [n for n in failed if not failed & _below(spans, n)]
    if len(origins) != 1:
        return None
    origin = spans[origins[0] - 1]
    above, current = [], origin.parent
    while current is not None:
        if current in failed:
            above.append(current)
        current = spans[current - 1].parent
    reached = f"with it failed {', '.join(map(str, above))}" if above else "no span above it failed"
    steps = (
        f"Failed spans: {', '.join(map(str, sorted(failed)))}.",
        f"Below {origin.number} no span failed; below the others one did."
        if len(failed) > 1
        else f"{origin.number} is the only one.",
    )
    return question, f"{origin.number} {origin.name}; {reached}", steps


def _below(spans: list[Span], number: int) -> set[int]:
    found: set[int] = set()
    for span in spans:  # a child has a larger number than its parent
        if span.parent == number or span.parent in found:
            found.add(span.number)
    return found
