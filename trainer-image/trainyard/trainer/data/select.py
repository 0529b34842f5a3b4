"""Which of the records that were read are used: columns, filters, duplicates, limit.

Columns and filters look at one record at a time. Duplicates and the limit are known only when all have been seen; they
leave a byte per record that says whether it is kept, so a hundred million records cost 100 MB here.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.api.run.selection import Filter
from trainyard.trainer.data.formats import FIELDS, FURTHER
from trainyard.trainer.data.parquet import Columns
from trainyard.trainer.data.row import Fault, Row

TIME_FIELDS = ("timestamp", "created_at", "time", "date", "metadata.timestamp")
_ABSENT = object()


def dig(value: Any, path: str) -> Any:
    """The value of a field, or of a field within one; None if it is not there.

    A field whose own name has dots in it wins over a path.
    """
    found = _dig(value, path)
    return None if found is _ABSENT else found


def _dig(value: Any, path: str) -> Any:
    if isinstance(value, dict) and path in value:
        return value[path]
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def columns_of(dataset: Dataset) -> Columns | None:
    """The fields of a record, as it is read, that anything looks at; None where that is not known."""
    if dataset.generate is not None:
        return None
    fields, further = FIELDS[dataset.format], FURTHER.get(dataset.format, ())
    named = {_column(path) for path in dataset.columns.values()}
    chosen = [f.field for f in dataset.filters] + (dataset.split.group_by if dataset.split else [])
    if dataset.selection_strategy == "Latest":
        chosen += [dataset.time_field] if dataset.time_field else TIME_FIELDS
    return Columns(
        needed=frozenset(named | {field for field in fields if field not in dataset.columns}),
        further=frozenset((*further, "kind", *map(_column, chosen))),
    )


def _column(path: str) -> str:
    return path.partition(".")[0]


def rename(row: Row, columns: dict[str, str]) -> Row | Fault:
    """The row with the format's field names. What is not named stays; a column that is not there is a fault."""
    if not columns:
        return row
    renamed = dict(row.value)
    for name, path in columns.items():
        found = _dig(row.value, path)
        if found is _ABSENT:
            present = ", ".join(sorted(map(str, row.value))[:12]) or "no fields"
            return Fault(row.place, f"columns.{name}: the record has no field {path}; it has {present}")
        renamed[name] = found
    return Row(row.source, row.line, renamed)


def passes(value: dict[str, Any], filters: list[Filter]) -> bool:
    """Whether all conditions hold."""
    return all(_holds(_dig(value, f.field), f) for f in filters)


def _holds(found: Any, condition: Filter) -> bool:
    there = found is not _ABSENT and found is not None
    match condition.operator:
        case "Exists":
            return there
        case "DoesNotExist":
            return not there
        case "NotIn":
            return not there or _text(found) not in condition.values
        case "In":
            return there and _text(found) in condition.values
        case "Contains":
            parts = [_text(item) for item in found] if isinstance(found, list) else None
            if parts is not None:
                return any(value in parts for value in condition.values)
            return there and any(value in _text(found) for value in condition.values)
        case "GreaterThan":
            return there and all(_compare(found, value) > 0 for value in condition.values)
        case _:
            return there and all(_compare(found, value) < 0 for value in condition.values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _compare(found: Any, value: str) -> int:
    """-1, 0 or 1, as numbers where both are."""
    try:
        left, right = float(found), float(value)
        return (left > right) - (left < right)
    except (TypeError, ValueError, OverflowError):
        text = _text(found)
        return (text > value) - (text < value)


def time_of(row: Row, field: str | None) -> float | Fault:
    """Seconds since 1970 of a record."""
    for path in [field] if field else TIME_FIELDS:
        found = _dig(row.value, path)
        if found is _ABSENT or found is None:
            continue
        moment = seconds(found)
        if moment is None:
            return Fault(row.place, f"field {path}: {found!r} is no time; write RFC 3339 or seconds since 1970")
        return moment
    wanted = field or ", ".join(TIME_FIELDS)
    return Fault(
        row.place, f"selectionStrategy Latest needs a time, and the record has no field {wanted}: set timeField"
    )


def seconds(value: Any) -> float | None:
    """A time as seconds since 1970: a number (nanoseconds and milliseconds are known by their size), or RFC 3339."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
        else:
            return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    if not isinstance(value, int | float):
        return None
    for size, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        if abs(value) >= size:
            return value / unit if abs(value) < 1e300 else None
    return float(value)


def group_of(value: dict[str, Any], fields: list[str], number: Callable[[bytes], int]) -> int:
    """A number that is equal for records of one group."""
    key = "\x00".join(_text(dig(value, path)) for path in fields)
    return number(key.encode("utf-8", "surrogatepass"))


def keep_by_limit(dataset: Dataset, keep: bytearray, times: array[float]) -> None:
    """Clear what `limit` leaves out under First and Latest; Random is decided by hash, in `split`."""
    limit = dataset.limit
    if limit is None or dataset.selection_strategy == "Random":
        return
    kept = (n for n, flag in enumerate(keep) if flag)
    if dataset.selection_strategy == "First":
        chosen = [n for _, n in zip(range(limit), kept, strict=False)]
    else:
        # Of equal times the later record counts as newer.
        chosen = heapq.nlargest(limit, kept, key=lambda n: (times[n], n))
    keep[:] = bytes(len(keep))
    for n in chosen:
        keep[n] = 1
