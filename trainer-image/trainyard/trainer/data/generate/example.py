"""One generated example, and the choices by content that generators make."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A problem with its solution and the steps that lead to it."""

    task: str
    problem: str
    solution: str
    steps: tuple[str, ...]
    source: str
    """What it was collected from: prometheus, loki, tempo, code or runbook."""
    query: str
    """Which part of the source: a query, a path, a trace id."""
    type: str
    """Kind of skill: metric_analysis, log_analysis, trace_analysis, code_understanding, runbook, function_call."""
    timestamp: str = ""

    def to_record(self) -> dict[str, Any]:
        """As a TRM record, with the task beside it."""
        return {
            "problem": self.problem,
            "initial_answer": "",
            "solution": self.solution,
            "reasoning_steps": list(self.steps),
            "metadata": {
                "source": self.source,
                "query": self.query,
                "type": self.type,
                "timestamp": self.timestamp,
                "task": self.task,
            },
            "task": self.task,
        }


def by_content(items: Sequence[T], salt: str) -> list[T]:
    """The items in an order that depends on what they say, not on how they came."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt}\0{item}".encode("utf-8", "replace")).digest())


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as 2025-12-28T10:00:00Z."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def clock(seconds: float) -> str:
    """Date and time of day to the second, without the zone, for lists of moments."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
