"""A row as a reader found it, or the fault that stands in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One record as it was found. `line` counts from 1; for Parquet and JSON it is the record's number."""

    source: str
    line: int
    value: dict[str, Any]

    @property
    def place(self) -> str:
        """`file.jsonl:7`"""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Fault:
    """Why a place in the data cannot be used."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def repeated(names: Iterable[str]) -> str | None:
    """A name that stands there twice; columns without a name are nobody's."""
    return next((name for name, count in Counter(names).items() if name and count > 1), None)
